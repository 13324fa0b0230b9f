"""What a checkpoint's JSON files say, validated once.

`config.json` holds the architecture; `preprocessor_config.json` how media are cut and sampled;
`generation_config.json` the sampling defaults. Keys that we don't use are the checkpoint's own
business and are left alone; a key that we need and can't use is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config_json import expect, optional, pick, read_json, section
from .errors import CheckpointError


@dataclass(frozen=True)
class DecoderConfig:
    """A Llama-shaped decoder with grouped-query attention."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def cached_values(self) -> int:
        """Numbers that the KV cache holds of a token: a key and a value a KV head of each layer."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_size


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP with a square table of position embeddings, and the resampler behind it."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    patch_size: int
    image_size: int
    layer_norm_eps: float = 1e-6
    num_channels: int = 3
    # From the top level of config.json:
    query_num: int = 64
    output_dim: int = 0
    drop_last_layer: bool = False

    @property
    def positions_per_side(self) -> int:
        """Side of the position table: 70 for 980 px and patches of 14."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class AudioConfig:
    """The encoder half of Whisper, average pooling by 2, a linear projection."""

    n_mels: int
    n_ctx: int
    n_state: int
    n_head: int
    n_layer: int
    output_dim: int
    avg_pool: bool = True
    add_audio_bos_eos_token: bool = True


@dataclass(frozen=True)
class ImageProcessorConfig:
    """How pictures are cut into slices (MODEL facts: MiniCPM-V's slicing)."""

    max_slice_nums: int = 9
    scale_resolution: int = 448
    patch_size: int = 14


@dataclass(frozen=True)
class AudioProcessorConfig:
    """Whisper-large-v3's log-mel front end; `chunk_seconds` is the longest span."""

    sampling_rate: int = 16000
    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 128
    chunk_seconds: int = 30

    @property
    def chunk_samples(self) -> int:
        return self.chunk_seconds * self.sampling_rate


@dataclass(frozen=True)
class GenerationDefaults:
    """Sampling used where a request is silent (`generation_config.json`)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    eos_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    decoder: DecoderConfig
    vision: VisionConfig
    audio: AudioConfig
    image_processor: ImageProcessorConfig = field(default_factory=ImageProcessorConfig)
    audio_processor: AudioProcessorConfig = field(default_factory=AudioProcessorConfig)
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> ModelConfig:
        """Reads a checkpoint directory. Raises CheckpointError naming the file and the key."""
        root = Path(path)
        if not root.is_dir():
            raise CheckpointError(f"checkpoint {root}: no such directory")
        config = read_json(root / "config.json")
        if config is None:
            raise CheckpointError(f"checkpoint {root}: config.json is missing")
        preprocessor = read_json(root / "preprocessor_config.json") or {}
        generation = read_json(root / "generation_config.json") or {}
        try:
            return cls.from_dicts(config, preprocessor, generation)
        except CheckpointError as error:
            raise CheckpointError(f"checkpoint {root}: {error}") from None

    @classmethod
    def from_dicts(
        cls,
        config: dict[str, Any],
        preprocessor: dict[str, Any] | None = None,
        generation: dict[str, Any] | None = None,
    ) -> ModelConfig:
        preprocessor = preprocessor or {}
        decoder = pick(DecoderConfig, {**config, **_rope(config)}, "config.json")
        vision_keys = dict(section(config, "vision_config"))
        vision_keys["output_dim"] = decoder.hidden_size
        vision_keys["query_num"] = config.get("query_num", 64)
        vision_keys["drop_last_layer"] = config.get("drop_vision_last_layer", False)
        vision = pick(VisionConfig, vision_keys, "config.json: vision_config")
        audio = pick(AudioConfig, section(config, "audio_config"), "config.json: audio_config")
        expect(config, "hidden_act", ("silu", "swish"), "config.json")
        expect(config["vision_config"], "hidden_act", ("gelu_pytorch_tanh",), "config.json: vision_config")
        expect(config, "head_dim", (decoder.head_size,), "config.json")
        images, sounds = (optional(preprocessor, key) for key in ("image_processor", "audio_processor"))
        image_keys = {"patch_size": vision.patch_size, **preprocessor, **images}
        for key in ("norm_mean", "norm_std", "image_mean", "image_std"):
            expect(image_keys, key, (0.5, [0.5, 0.5, 0.5]), "preprocessor_config.json")
        expect(image_keys, "slice_mode", (True,), "preprocessor_config.json")
        audio_keys = {"n_mels": audio.n_mels, **sounds}
        result = cls(
            decoder=decoder,
            vision=vision,
            audio=audio,
            image_processor=pick(ImageProcessorConfig, image_keys, "preprocessor_config.json"),
            audio_processor=pick(AudioProcessorConfig, audio_keys, "preprocessor_config.json"),
            generation=_generation_defaults(config, generation or {}),
        )
        result._validate()
        return result

    def _validate(self) -> None:
        d, v, a = self.decoder, self.vision, self.audio
        checks = [
            (d.hidden_size % d.num_attention_heads == 0, "hidden_size must be a multiple of num_attention_heads"),
            (d.head_size % 2 == 0, "the decoder's head size must be even (rotary embedding)"),
            (
                d.num_attention_heads % d.num_key_value_heads == 0,
                "num_attention_heads must be a multiple of num_key_value_heads",
            ),
            (
                d.hidden_size >= 128 and d.hidden_size % (4 * (d.hidden_size // 128)) == 0,
                "hidden_size must be divisible by 4, and by the resampler's hidden_size // 128 heads",
            ),
            (
                v.hidden_size % v.num_attention_heads == 0,
                "vision_config.hidden_size must be a multiple of its num_attention_heads",
            ),
            (v.image_size >= v.patch_size, "vision_config.image_size must be at least its patch_size"),
            (v.num_channels == 3, "vision_config.num_channels must be 3"),
            (
                v.num_hidden_layers > int(v.drop_last_layer),
                "vision_config.num_hidden_layers leaves no layer after drop_vision_last_layer",
            ),
            (a.n_state % a.n_head == 0, "audio_config.n_state must be a multiple of its n_head"),
            (
                a.output_dim == d.hidden_size,
                f"audio_config.output_dim is {a.output_dim}, but hidden_size is {d.hidden_size}",
            ),
            (
                self.audio_processor.n_mels == a.n_mels,
                "preprocessor_config.json: n_mels differs from audio_config.n_mels",
            ),
            (
                self.audio_processor.chunk_samples <= 2 * a.n_ctx * self.audio_processor.hop_length,
                "chunk_seconds of audio is longer than audio_config.n_ctx positions",
            ),
        ]
        for ok, message in checks:
            if not ok:
                raise CheckpointError(message)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """rope_theta, which transformers 5 writes into `rope_parameters`. No scaling is supported."""
    parameters: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        if config.get(key) is not None:
            parameters.update(section(config, key))
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"config.json: rope scaling {kind!r} is not supported")
    return {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}


def _generation_defaults(config: dict[str, Any], generation: dict[str, Any]) -> GenerationDefaults:
    """Keys that are absent or null leave the defaults; `do_sample: false` means greedy."""
    where = "generation_config.json"

    def number(key: str, default: float) -> float:
        value = generation.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise CheckpointError(f"{where}: {key} must be a number of at least 0, got {value!r}")
        return value

    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise CheckpointError(f"{where}: eos_token_id must be an integer or a list of them, got {eos!r}")
    if any(i < 0 for i in ids):
        raise CheckpointError(f"{where}: eos_token_id must not be negative, got {eos!r}")
    base = GenerationDefaults()
    defaults = GenerationDefaults(
        temperature=0.0 if generation.get("do_sample") is False else float(number("temperature", base.temperature)),
        top_p=float(number("top_p", base.top_p)),
        top_k=int(number("top_k", base.top_k)),
        repetition_penalty=float(number("repetition_penalty", base.repetition_penalty)),
        eos_token_ids=tuple(ids),
    )
    if defaults.top_p > 1 or defaults.repetition_penalty == 0:
        raise CheckpointError(f"{where}: top_p must be at most 1 and repetition_penalty more than 0")
    return defaults
