"""What one H100 could do at best with Megrez-3B-Omni: `python -m benchmarks.engine.projection`.

Nothing here is measured by us: bytes and operations are counted from the published configuration, the GPU's speeds are
its maker's, and the authors' figures are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import ModelConfig, VisionConfig

from .full_size import CONFIG
from .properties import IMAGE_TOKENS, TEXT_TOKENS
from .roofline import Machine, Work, decode, prefill

H100 = Machine(bandwidth=3.35e12, flops=989e12)
"""H100 SXM: HBM3, and bfloat16 products without sparsity (NVIDIA's data sheet)."""

_CONFIG = ModelConfig.from_dicts(CONFIG)
DECODER, VISION = _CONFIG.decoder, _CONFIG.vision

SEQUENCES, ANSWER = 8, 128
SLICES, PATCHES = IMAGE_TOKENS // 64, 1024
"""A picture of 720 x 1480: 7 slices of 64 tokens; a slice has about 448 x 448 pixels, 32 x 32 patches."""

PUBLISHED = {"in": 6312.66, "out": 1294.9}
"""Tokens a second on one H100 with vLLM 0.6.3, by the model's authors: 128 tokens of text and a picture of 720 x 1480
in, 128 out, 8 at a time, 100 identical requests."""

BFLOAT16 = 2.0


@dataclass(frozen=True)
class Row:
    what: str
    tokens_a_second: float
    bound_by: str
    published: float | None = None


def encode(c: VisionConfig, slices: int, patches: int) -> Work:
    """SigLIP over slices; the resampler's part is below a hundredth."""
    layer = 4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size
    attention = 4.0 * patches**2 * c.hidden_size
    flops = slices * c.num_hidden_layers * (2.0 * patches * layer + attention)
    return Work(BFLOAT16 * c.num_hidden_layers * layer, flops)


def rows() -> list[Row]:
    prompt = IMAGE_TOKENS + TEXT_TOKENS
    pictures = encode(VISION, SEQUENCES * SLICES, PATCHES)
    texts = prefill(DECODER, prompt, BFLOAT16)
    language = Work(texts.nbytes, SEQUENCES * texts.flops)
    steps = decode(DECODER, SEQUENCES, prompt + ANSWER // 2, BFLOAT16, BFLOAT16)
    taken = language.seconds(H100) + pictures.seconds(H100)
    return [
        Row("in, the language model alone", SEQUENCES * prompt / language.seconds(H100), bound(language)),
        Row("in, pictures encoded", SEQUENCES * prompt / taken, bound(pictures), PUBLISHED["in"]),
        Row("out, 8 at a time", SEQUENCES / steps.seconds(H100), bound(steps), PUBLISHED["out"]),
        *(
            Row(f"out, {batch} at a time", batch / work.seconds(H100), bound(work))
            for batch in (1, 32, 64)
            for work in [decode(DECODER, batch, prompt + ANSWER // 2, BFLOAT16, BFLOAT16)]
        ),
    ]


def bound(work: Work) -> str:
    return "memory" if work.nbytes / H100.bandwidth > work.flops / H100.flops else "arithmetic"


def table() -> str:
    lines = [
        "| tokens a second | at best, projected | bound by | published by the authors | of it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows():
        known = (
            ("", "") if row.published is None else (f"{row.published}", f"{row.published / row.tokens_a_second:.2f}")
        )
        lines.append(f"| {row.what} | {row.tokens_a_second:,.0f} | {row.bound_by} | {' | '.join(known)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
