"""The model in training is the model that is served, and its batches keep conversations apart."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline.model.attention import FlashAttention, TorchAttention
from pipeline.omni import Omni, Segment
from training.attention import MatmulAttention
from training.collator import collate
from training.features import Features, Featuriser, listed
from training.model import IGNORED, OmniForTraining, training_attention

from .tiny import Turn, assistant, tone, user

CONVERSATIONS: dict[str, list[Turn]] = {
    "text": [user("What do you see?"), assistant("nothing")],
    "picture": [user("What do you see?", Image.new("RGB", (200, 100), "red")), assistant("a red square")],
    "sound": [user(audio=tone(300, 0.7)), assistant("a low tone")],
    "both, two turns": [
        {"role": "system", "content": "Be short."},
        user("What do you see and hear?", [Image.new("RGB", (60, 90), "green")], [tone(900), tone(400, 0.3)]),
        assistant("one green circle"),
        user("And then?"),
        assistant("silence, 然后什么都没有"),
    ],
}


@pytest.fixture(scope="module")
def featurise(tiny_path: Path) -> Featuriser:
    return Featuriser.from_pretrained(tiny_path)


@pytest.fixture(scope="module")
def features(featurise: Featuriser) -> dict[str, Features]:
    return {name: featurise(turns) for name, turns in CONVERSATIONS.items()}


@pytest.fixture
def model(tiny_path: Path) -> OmniForTraining:
    return OmniForTraining.from_pretrained(tiny_path)


def gradients(model: OmniForTraining, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a batch, and what it brings every parameter; none is left without."""
    model.zero_grad()
    loss = model(**batch)["loss"]
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in found.items() if grad is None] == []
    return loss.item(), {name: grad.clone() for name, grad in found.items()}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_logits_are_the_served_ones(
    name: str, features: dict[str, Features], model: OmniForTraining, tiny_path: Path
) -> None:
    batch = collate([features[name]])
    logits = model.llm.lm_head(model.hidden(batch["input_ids"], batch["lengths"], batch["media"]))
    expected = served_logits(Omni.from_pretrained(tiny_path), name, features[name])
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-4, atol=1e-4)


def served_logits(omni: Omni, name: str, features: Features) -> torch.Tensor:
    """Of the same token ids, with the served encoders' embeds where media stand."""
    media: dict[int, torch.Tensor] = {}
    contents = [turn["content"] for turn in CONVERSATIONS[name] if isinstance(turn["content"], dict)]
    pictures = [omni.encode_image(x).flatten(0, 1) for content in contents for x in listed(content.get("image"))]
    sounds = [omni.encode_audio(x) for content in contents for x in listed(content.get("audio"))]
    for positions, embeds in ((features.image_positions, pictures), (features.audio_positions, sounds)):
        rows = torch.cat(embeds) if embeds else []
        assert len(rows) == len(positions)
        media |= dict(zip(positions, rows, strict=True))
    segments: list[Segment] = [media[i][None] if i in media else [t] for i, t in enumerate(features.input_ids)]
    return omni.logits(segments)


def test_an_assistants_tokens_are_wanted_with_their_end(
    featurise: Featuriser, features: dict[str, Features], tiny_path: Path
) -> None:
    chosen, stop = features["both, two turns"], featurise.tokenizer.special("turn_end")
    wanted = [(i, label) for i, label in enumerate(chosen.labels) if label != IGNORED]
    assert all(chosen.input_ids[i + 1] == label for i, label in wanted)
    ids = [label for _, label in wanted]
    cut = ids.index(stop) + 1
    assert [featurise.tokenizer.decode(part) for part in (ids[:cut], ids[cut:])] == [
        "one green circle",
        "silence, 然后什么都没有",
    ]
    assert ids[-1] == stop
    assert ids.count(stop) == 2
    # The first label of an answer stands at the last token of the prompt that is served.
    omni = Omni.from_pretrained(tiny_path)
    prompt = omni._generator.prompt(*omni._messages(CONVERSATIONS["both, two turns"][:2]))
    assert wanted[0][0] == len(prompt.token_ids) - 1


def test_a_packed_batch_gives_each_conversations_loss(features: dict[str, Features], model: OmniForTraining) -> None:
    """Their mean by labelled tokens, and so the mean of their gradients."""
    together, grads = gradients(model, collate(list(features.values())))
    counts = [sum(label != IGNORED for label in f.labels) for f in features.values()]
    alone = [gradients(model, collate([f])) for f in features.values()]
    shares = [count / sum(counts) for count in counts]
    assert len({round(loss, 3) for loss, _ in alone}) == len(alone)  # they can be told apart
    assert together == pytest.approx(sum(s * loss for s, (loss, _) in zip(shares, alone, strict=True)), rel=1e-5)
    for name, grad in grads.items():
        mean = sum(s * own[name] for s, (_, own) in zip(shares, alone, strict=True))
        torch.testing.assert_close(grad, mean, rtol=1e-3, atol=1e-6)


def test_labelled_positions_alone_give_the_loss_of_all(features: dict[str, Features], model: OmniForTraining) -> None:
    """The last layer computes nothing else for them; what they look at stays the same."""
    batch = collate(list(features.values()))
    loss, grads = gradients(model, batch)
    model.zero_grad()
    logits = model.llm.lm_head(model.hidden(batch["input_ids"], batch["lengths"], batch["media"]))
    of_all = torch.nn.functional.cross_entropy(logits, batch["labels"], ignore_index=IGNORED)
    of_all.backward()
    assert loss == pytest.approx(of_all.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_the_loss_is_divided_by_the_tokens_given(features: dict[str, Features], model: OmniForTraining) -> None:
    batch = collate([features["text"]])
    count = int((batch["labels"] != IGNORED).sum())
    own = model(**batch)["loss"].item()
    assert model(**batch, num_items_in_batch=4 * count)["loss"].item() == pytest.approx(own / 4)


def test_checkpointed_layers_give_the_same(features: dict[str, Features], model: OmniForTraining) -> None:
    batch = collate(list(features.values()))
    loss, grads = gradients(model, batch)
    kept = saved_bytes(model, batch)
    model.activation_checkpointing_enable()
    assert saved_bytes(model, batch) < kept / 2
    again, computed = gradients(model, batch)
    assert again == pytest.approx(loss, rel=1e-6)
    for name, grad in grads.items():
        torch.testing.assert_close(computed[name], grad, rtol=1e-4, atol=1e-7)


def saved_bytes(model: OmniForTraining, batch: dict[str, Any]) -> int:
    """What the way forward keeps for the way back."""
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(**batch)
    return sum(kept)


@pytest.mark.parametrize(
    ("name", "unused"), [("text", ("vision.", "audio.")), ("picture", ("audio.",)), ("sound", ("vision.",))]
)
def test_an_encoder_without_media_gets_a_gradient_of_zero(
    name: str, unused: tuple[str, ...], features: dict[str, Features], model: OmniForTraining
) -> None:
    _, grads = gradients(model, collate([features[name]]))
    idle = {parameter for parameter, grad in grads.items() if not grad.any()}
    assert {parameter for parameter in grads if parameter.startswith(unused)} <= idle
    assert not any(parameter.startswith("llm.") for parameter in idle)
    for prefix, output in (("vision.", "vision.resampler.proj"), ("audio.", "audio.audio.proj.weight")):
        assert (output in idle) == (prefix in unused)


def test_a_frozen_encoder_without_media_gets_none(features: dict[str, Features], model: OmniForTraining) -> None:
    model.vision.requires_grad_(False)
    model(**collate([features["text"]]))["loss"].backward()
    assert all(parameter.grad is None for parameter in model.vision.parameters())


def test_every_batch_runs_the_same_modules_where_processes_train_together(
    features: dict[str, Features], model: OmniForTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    model.vision.requires_grad_(False)
    stages = {"vision": model.vision, "audio": model.audio, "llm": model.llm.model.layers[0]}
    for name, stage in stages.items():
        stage.register_forward_hook(lambda *_, name=name: order.append(name))
    for name in CONVERSATIONS:
        order: list[str] = []
        model(**collate([features[name]]))
        assert order == ["vision", "audio", "llm"]


@pytest.mark.parametrize(
    ("name", "device", "dtype", "expected"),
    [
        ("auto", "cpu", torch.bfloat16, MatmulAttention),
        ("torch", "cpu", torch.float32, TorchAttention),
        ("auto", "cuda", torch.float32, TorchAttention),
        ("auto", "cuda", torch.bfloat16, FlashAttention),
        ("flash", "cuda", torch.bfloat16, FlashAttention),
    ],
)
def test_attention_fits_where_it_computes(
    name: str, device: str, dtype: torch.dtype, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    assert type(training_attention(name, torch.device(device), dtype)) is expected


def test_auto_is_torchs_on_cuda_without_flash_attn() -> None:
    if find_spec("flash_attn"):
        pytest.skip("flash-attn is installed")
    assert type(training_attention("auto", torch.device("cuda"), torch.bfloat16)) is TorchAttention
