"""One stage's tensors, read strictly from a checkpoint directory.

A stage opens only the files that hold its own tensors and reads only those tensors from them, so
its process never holds another stage's weights. Only safetensors are read; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..config import ModelConfig
from ..errors import CheckpointError, MegrezError
from .attention import Attention, make_attention

STAGE_PREFIXES = ("llm.", "vision.", "audio.")
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

Model = TypeVar("Model", bound=nn.Module)

Recorder = Callable[[str, str], None]
"""Called with (file name, tensor name) for each tensor that is read."""


class StageModel(Protocol):
    """A network whose parameters are named as released, below `prefix`."""

    prefix: str

    def ignores(self, name: str) -> bool: ...


def load_pretrained(
    path: str | Path, build: Callable[[ModelConfig, Attention], Model], *, device: str, dtype: str, attention: str
) -> tuple[ModelConfig, Model]:
    """A checkpoint's configuration, and one stage of it on a device. Raises CheckpointError, MegrezError."""
    config = ModelConfig.from_pretrained(path)
    target, kind = torch.device(device), torch_dtype(dtype)
    kernel = make_attention(attention, target, kind)
    return config, load_stage(lambda: build(config, kernel), path, dtype=kind, device=target)


def load_stage(
    build: Callable[[], Model],
    path: str | Path,
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    on_read: Recorder | None = None,
) -> Model:
    """Builds a stage without memory, then reads its tensors from the checkpoint at `path`; `dtype` None: as stored.

    `build` returns a `StageModel`. Raises CheckpointError naming every missing, surplus or
    ill-shaped tensor (the first eight of each).
    """
    with torch.device("meta"):
        model = build()
    prefix: str = model.prefix  # type: ignore[assignment]
    expected = {prefix + name: parameter for name, parameter in model.named_parameters()}
    files = _tensor_files(Path(path))
    _check_names(model, expected, files)
    tied = {prefix + name for name, _ in model.named_parameters(remove_duplicate=False)} - set(expected)
    state: dict[str, torch.Tensor] = {}
    twins: dict[str, torch.Tensor] = {}
    for file in sorted({files[name] for name in [*expected, *tied] if name in files}):
        with _open(file) as handle:
            for name in (n for n in [*expected, *tied] if files.get(n) == file):
                tensor = _read(handle, file, name, expected.get(name))
                (state if name in expected else twins)[name] = tensor.to(device=device, dtype=dtype)
                if on_read:
                    on_read(file.name, name)
    _check_tied(twins, state)
    model.load_state_dict({n.removeprefix(prefix): t for n, t in state.items()}, strict=False, assign=True)
    _retie(model)
    model.requires_grad_(False).eval()
    return model


def unused_tensors(model: nn.Module, path: str | Path) -> dict[str, torch.Tensor]:
    """What the checkpoint holds for a stage that has no use for it: a dropped last layer, tables computed anew."""
    found: dict[str, torch.Tensor] = {}
    for name, file in _tensor_files(Path(path)).items():
        if name.startswith(model.prefix) and model.ignores(name):  # type: ignore[operator, arg-type]
            with _open(file) as handle:
                found[name] = handle.get_tensor(name)
    return found


def _read(handle: Any, file: Path, name: str, expected: nn.Parameter | None) -> torch.Tensor:
    try:
        shape = tuple(handle.get_slice(name).get_shape())
        if expected is not None and shape != tuple(expected.shape):
            raise CheckpointError(
                f"{file.name}: tensor {name} has shape {list(shape)}, but config.json asks for {list(expected.shape)}"
            )
        tensor: torch.Tensor = handle.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{file.name}: tensor {name} can't be read: {error}") from None
    if not tensor.is_floating_point():
        raise CheckpointError(f"{file.name}: tensor {name} holds {tensor.dtype}, not floating point")
    return tensor


def torch_dtype(name: str) -> torch.dtype:
    """'float32' or 'bfloat16'. Raises MegrezError for any other."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in kinds:
        raise MegrezError(f"dtype must be one of {', '.join(kinds)}, not {name!r}")
    return kinds[name]


def _tensor_files(root: Path) -> dict[str, Path]:
    """Name of each tensor in the checkpoint -> the file that holds it. Reads headers only."""
    index = root / INDEX_FILE
    if not index.exists():
        file = root / SINGLE_FILE
        if not file.exists():
            raise CheckpointError(f"checkpoint {root}: neither {SINGLE_FILE} nor {INDEX_FILE} is there")
        with _open(file) as handle:
            return dict.fromkeys(handle.keys(), file)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): root / str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of safetensors files ({error!r})") from None
    for file in sorted(set(files.values())):
        if file.parent != root:
            raise CheckpointError(f"{index.name}: {file.name} is not a file in the checkpoint's directory")
        if not file.exists():
            raise CheckpointError(f"{index.name} names {file.name}, which is missing")
    return files


def _check_names(model: nn.Module, expected: dict[str, nn.Parameter], files: dict[str, Path]) -> None:
    prefix: str = model.prefix  # type: ignore[assignment]
    allowed = set(expected) | {prefix + name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = [name for name in expected if name not in files]
    own = [name for name in files if name.startswith(prefix) and not model.ignores(name)]  # type: ignore[operator]
    strangers = [name for name in files if not name.startswith(STAGE_PREFIXES)]
    surplus = [name for name in own if name not in allowed] + strangers
    for kind, names in (("is missing", missing), ("holds surplus", surplus)):
        if names:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            plural = "tensor" if len(names) == 1 else f"{len(names)} tensors"
            raise CheckpointError(f"the checkpoint {kind} {plural}: {shown}")


def _check_tied(twins: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    """A tied tensor may be stored a second time; it must then say the same."""
    for name, tensor in twins.items():
        if not any(other.shape == tensor.shape and torch.equal(other, tensor) for other in state.values()):
            raise CheckpointError(f"tensor {name} differs from the embeddings that tie_word_embeddings ties it to")


def _retie(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    if getattr(config, "tie_word_embeddings", False):
        model.lm_head.weight = model.model.embed_tokens.weight  # type: ignore[union-attr]


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file.name} is not a readable safetensors file: {error}") from None
