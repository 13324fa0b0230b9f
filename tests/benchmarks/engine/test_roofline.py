from __future__ import annotations

import pytest

from benchmarks.engine.roofline import CpuProbe, Machine, Work, decode, prefill
from pipeline.config import DecoderConfig

CONFIG = DecoderConfig(
    hidden_size=128,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=1000,
    max_position_embeddings=64,
)
LAYER = 128 * 128 + 2 * 128 * 64 + 128 * 128 + 3 * 128 * 96
HEAD = 1000 * 128


def counted(context_lens: list[int], sampled: int) -> float:
    """Operations, token by token: a multiplication and an addition for each weight, and for each component of each key
    and value that is seen by each head."""
    total = 0
    for seen in context_lens:
        total += 2 * 3 * LAYER + 3 * 4 * 32 * seen * 4
    return total + 2 * HEAD * sampled


def test_a_decode_step() -> None:
    work = decode(CONFIG, 5, 20)
    assert work.flops == counted([20] * 5, sampled=5)
    assert work.nbytes == 4 * (3 * LAYER + HEAD) + 5 * 20 * 3 * 2 * 2 * 32 * 4


def test_a_prompt() -> None:
    work = prefill(CONFIG, 20)
    assert work.flops == counted(list(range(1, 21)), sampled=1)
    assert work.nbytes == 4 * (3 * LAYER + HEAD)


def test_smaller_weights_are_less_to_read() -> None:
    assert decode(CONFIG, 1, 1, weight_bytes=1).nbytes < decode(CONFIG, 1, 1).nbytes / 3
    assert decode(CONFIG, 1, 1, weight_bytes=1).flops == decode(CONFIG, 1, 1).flops


def test_the_slower_of_reading_and_computing_counts() -> None:
    assert Work(100, 10).seconds(Machine(10, 10)) == 10
    assert Work(10, 100).seconds(Machine(10, 10)) == 10
    assert Work(100, 300).seconds(Machine(10, 10)) == 30


def test_the_machine_is_the_median_of_what_was_seen() -> None:
    probe = object.__new__(CpuProbe)
    probe._seen = [Machine(3, 10), Machine(1, 30), Machine(2, 20)]
    assert probe.machine == Machine(2, 20)


def test_this_machine_reads_and_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.engine.roofline.SIZE", 256)
    monkeypatch.setattr("benchmarks.engine.roofline.READ_BYTES", 2**22)
    probe = CpuProbe(1)
    probe.measure()
    assert 1e8 < probe.machine.bandwidth < 1e13
    assert 1e8 < probe.machine.flops < 1e14
