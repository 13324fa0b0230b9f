from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline import Omni
from pipeline.config import GenerationDefaults
from pipeline.engine.engine import EngineConfig
from pipeline.engine.memory import CacheBudget
from pipeline.errors import ContextOverflow, InvalidMedia, InvalidRequest, MediaTooLarge
from pipeline.types import SamplingParams
from tests.golden import DATA, META, reference, relative_error

PICTURE, SOUND = DATA / "sample_image.jpg", DATA / "sample_audio.mp3"
QUESTION = DATA / "audios" / "0_0_0_chattts.wav"
GREEDY = {"temperature": 0, "max_tokens": 16}


def golden_segments(omni: Omni) -> list[Any]:
    ref = reference()
    return [
        ref["decoder/text_before"].tolist(),
        omni.encode_image(PICTURE),
        ref["decoder/text_between"].tolist(),
        omni.encode_audio(SOUND),
        ref["decoder/text_after"].tolist(),
    ]


def user(text: str = "", **media: Any) -> dict[str, Any]:
    return {"role": "user", "content": {"text": text, **media}}


class TestGolden:
    """From files to tokens, through every stage."""

    def test_logits(self, golden_omni: Omni) -> None:
        logits = golden_omni.logits(golden_segments(golden_omni))
        assert logits.shape == (META["decoder"]["prompt_len"], 512)
        assert logits.dtype == torch.float32
        assert relative_error(logits[-8:], reference()["decoder/prompt_logits_last8"]) < 1e-4

    def test_greedy(self, golden_omni: Omni) -> None:
        segments = golden_segments(golden_omni)
        out = golden_omni.generate(segments, max_new_tokens=48, temperature=0, ignore_eos=True)
        assert out == reference()["decoder/greedy48"].tolist()

    @pytest.mark.parametrize("budget", [64, 100])
    def test_in_chunks(self, golden_path: Path, budget: int) -> None:
        omni = Omni.from_pretrained(golden_path, engine=EngineConfig(kv_cache=CacheBudget(64), max_batch_tokens=budget))
        out = omni.generate(golden_segments(omni), max_new_tokens=48, temperature=0, ignore_eos=True)
        assert out == reference()["decoder/greedy48"].tolist()

    def test_bfloat16_stays_near(self, golden_path: Path) -> None:
        omni = Omni.from_pretrained(golden_path, dtype="bfloat16")
        image = omni.encode_image(PICTURE)
        assert image.dtype == torch.bfloat16
        assert relative_error(image.float(), reference()["image/sample_image/embeds"]) < 0.1


class TestEncode:
    def test_sources_of_a_picture(self, golden_omni: Omni) -> None:
        wanted = golden_omni.encode_image(PICTURE)
        for source in (str(PICTURE), PICTURE.read_bytes(), Image.open(PICTURE)):
            assert torch.equal(golden_omni.encode_image(source), wanted)

    def test_sources_of_a_recording(self, golden_omni: Omni) -> None:
        wanted = golden_omni.encode_audio(QUESTION)
        for source in (str(QUESTION), QUESTION.read_bytes()):
            assert torch.equal(golden_omni.encode_audio(source), wanted)
        assert golden_omni.encode_audio(np.zeros(16000, np.float32)).shape == (27, 256)

    @pytest.mark.parametrize("size", [(0, 0), (0, 5), (201, 1)])
    def test_pictures_of_no_use(self, golden_omni: Omni, size: tuple[int, int]) -> None:
        with pytest.raises(InvalidMedia):
            golden_omni.encode_image(Image.new("RGB", size))

    def test_a_picture_over_the_limit(self, golden_omni: Omni) -> None:
        with pytest.raises(MediaTooLarge):
            golden_omni.encode_image(Image.new("1", (10_000, 5_000)))

    @pytest.mark.parametrize(
        "samples",
        [np.zeros(0, np.float32), np.zeros(100, np.float32), np.full(16000, np.nan, np.float32)],
        ids=["empty", "short", "nan"],
    )
    def test_waveforms_of_no_use(self, golden_omni: Omni, samples: np.ndarray) -> None:
        with pytest.raises(InvalidMedia):
            golden_omni.encode_audio(samples)


class TestChat:
    def test_the_authors_format(self, mini_omni: Omni) -> None:
        text = mini_omni.chat([user("What is this?", image=str(PICTURE), audio=SOUND)], **GREEDY)
        assert isinstance(text, str)
        assert text

    def test_every_part_counts(self, mini_omni: Omni) -> None:
        """Leaving out a medium, or changing it, changes the distribution of the first token."""
        conversations = [
            [user("Describe.")],
            [user("Describe.", image=PICTURE)],
            [user("Describe.", image=DATA / "images" / "10688.jpeg")],
            [user("Describe.", audio=SOUND)],
            [user("Describe.", audio=QUESTION)],
            [user("Describe.", image=PICTURE, audio=SOUND)],
            [user("Describe.", image=[PICTURE, PICTURE])],
            [{"role": "system", "content": "Be brief."}, user("Describe.")],
        ]
        generator = mini_omni._generator
        seen = []
        for conversation in conversations:
            turns, media = mini_omni._messages(conversation)
            prompt = generator.prompt(turns, media)
            rows = [m.embeds.flatten(0, -2) for m in media]
            engine_id = generator.engine.add(
                prompt, rows, SamplingParams(max_tokens=1, temperature=0, logprobs=20, ignore_eos=True)
            )
            top = None
            while not generator.engine.idle:
                for output in generator.engine.step():
                    assert output.sequence_id == engine_id
                    top = output.logprobs.top if output.logprobs else None
            assert top is not None
            seen.append(tuple(round(t.logprob, 4) for t in top))
        assert len(set(seen)) == len(conversations)

    def test_content_may_be_a_string(self, mini_omni: Omni) -> None:
        plain = mini_omni.chat([{"role": "user", "content": "Hello"}], **GREEDY)
        assert plain == mini_omni.chat([user("Hello")], **GREEDY)

    def test_several_turns_and_media(self, mini_omni: Omni) -> None:
        conversation = [
            {"role": "system", "content": "Be brief."},
            user("Compare.", image=[PICTURE, DATA / "images" / "10688.jpeg"]),
            {"role": "assistant", "content": {"text": "They differ."}},
            user("And this?", audio=[SOUND, QUESTION], image=None),
        ]
        turns, media = mini_omni._messages(conversation)
        assert [(t.role, t.images, t.audios) for t in turns] == [
            ("system", (), ()),
            ("user", (0, 1), ()),
            ("assistant", (), ()),
            ("user", (), (2, 3)),
        ]
        assert len(media) == 4
        assert mini_omni.chat(conversation, **GREEDY)

    def test_streaming_equals_the_whole(self, mini_omni: Omni) -> None:
        conversation = [user("Hello 你好", image=DATA / "images" / "100284327.jpeg")]
        params = {"max_tokens": 60, "min_tokens": 60, "seed": 3, "temperature": 2.0}  # sixty that are no end
        pieces = list(mini_omni.chat(conversation, stream=True, **params))
        assert len(pieces) > 5
        assert "".join(pieces) == mini_omni.chat(conversation, **params)

    def test_interleaved_streams_are_independent(self, mini_omni: Omni) -> None:
        conversations = [[user(f"Question {i}")] for i in range(3)]
        params = {"max_tokens": 20, "temperature": 0, "ignore_eos": True}
        wanted = [mini_omni.chat(c, **params) for c in conversations]
        streams = [mini_omni.chat(c, stream=True, **params) for c in conversations]
        got = ["", "", ""]
        open_ = {0, 1, 2}
        while open_:
            for i in sorted(open_):
                piece = next(streams[i], None)
                if piece is None:
                    open_.discard(i)
                else:
                    got[i] += piece
        assert got == wanted

    def test_a_stream_left_behind_frees_what_it_held(self, mini_omni: Omni) -> None:
        stream = mini_omni.chat([user("Hello")], stream=True, max_tokens=500, ignore_eos=True)
        next(stream)
        assert mini_omni._generator.engine.blocks.used > 0
        stream.close()  # type: ignore[attr-defined]
        assert mini_omni._generator.idle
        assert mini_omni._generator.engine.blocks.used == 0
        assert not mini_omni._mailboxes

    def test_the_checkpoints_defaults_are_used(self, mini_omni: Omni, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        defaults = GenerationDefaults(temperature=0.7, top_p=0.8, top_k=100, repetition_penalty=1.2)
        monkeypatch.setattr(mini_omni, "config", replace(mini_omni.config, generation=defaults))
        original = mini_omni._generator.add
        monkeypatch.setattr(mini_omni._generator, "add", lambda p, m, s, n=1: seen.append(s) or original(p, m, s, n))
        mini_omni.chat([user("Hi")], max_tokens=1)
        mini_omni.chat([user("Hi")], max_tokens=1, temperature=0.1, top_k=5)
        assert [(s.temperature, s.top_p, s.top_k, s.repetition_penalty) for s in seen] == [
            (0.7, 0.8, 100, 1.2),
            (0.1, 0.8, 5, 1.2),
        ]

    @pytest.mark.parametrize(
        ("message", "words"),
        [
            ({"role": "user", "content": {"text": "x", "video": "cat.mp4"}}, "video"),
            ({"role": "user", "content": {"texts": "x"}}, "texts"),
            ({"role": "tool", "content": "x"}, "tool"),
            ({"role": "user"}, "content"),
            ({"content": "x"}, "role"),
            ({"role": "user", "content": None}, "content"),
            ({"role": "user", "content": {"text": 5}}, "text"),
        ],
    )
    def test_messages_of_no_use(self, mini_omni: Omni, message: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            mini_omni.chat([message], **GREEDY)
        assert mini_omni._generator.idle

    def test_no_messages(self, mini_omni: Omni) -> None:
        with pytest.raises(InvalidRequest):
            mini_omni.chat([], **GREEDY)

    def test_over_the_context(self, mini_omni: Omni) -> None:
        with pytest.raises(ContextOverflow):
            mini_omni.chat([user("word " * 5000)], **GREEDY)
        assert mini_omni._generator.idle

    def test_an_unknown_sampling_parameter(self, mini_omni: Omni) -> None:
        with pytest.raises(TypeError, match="best_of"):
            mini_omni.chat([user("Hi")], best_of=3)

    def test_a_prompt_of_embeds_alone(self, golden_omni: Omni) -> None:
        segments = [golden_omni.encode_audio(SOUND)]
        out = golden_omni.generate(segments, max_new_tokens=4, temperature=0, repetition_penalty=1.2)
        assert 1 <= len(out) <= 4


class TestCheckpoints:
    def test_sharded(self, golden_path: Path, golden_omni: Omni, tmp_path: Path) -> None:
        for file in golden_path.iterdir():
            if file.suffix != ".safetensors":
                shutil.copy(file, tmp_path)
        weights = load_file(golden_path / "model.safetensors")
        weight_map = {}
        for i, prefix in enumerate(("audio", "llm.model", "llm.lm_head", "vision")):
            part = {name: tensor for name, tensor in weights.items() if name.startswith(prefix)}
            file_name = f"model-{i}.safetensors"
            save_file(part, tmp_path / file_name)
            weight_map |= dict.fromkeys(part, file_name)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        omni = Omni.from_pretrained(tmp_path)
        ids = reference()["decoder/text_before"].tolist()
        run: Callable[[Omni], list[int]] = lambda o: o.generate([ids], max_new_tokens=8, temperature=0)  # noqa: E731
        assert run(omni) == run(golden_omni)
        assert torch.equal(omni.encode_audio(SOUND), golden_omni.encode_audio(SOUND))


def test_as_many_threads_as_torch_has(mini_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        omni = Omni.from_pretrained(mini_path)
        assert torch.get_num_threads() == 2, "for the encoders"
        assert omni._generator.engine.runner.model._team.members == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("segment", "message"),
    [(torch.zeros(3, 7), r"\[n, 256\], not \[3, 7\]"), ([5, 512], "below 512"), ([-1], "below 512")],
)
def test_segments_that_can_not_be_read(golden_omni: Omni, segment: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        golden_omni.generate([[1, 2], segment], max_new_tokens=1)
    assert caught.value.param == "segments"
