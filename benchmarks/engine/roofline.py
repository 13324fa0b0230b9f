"""What this machine could do at best: its measured speeds, and the bytes and operations of a model's steps."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from pipeline.config import DecoderConfig
from pipeline.native.compiled import project
from pipeline.native.packing import Packed, allocate
from pipeline.native.team import Team
from training.hardware import processor_name

SIZE = 2048
READ_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Machine:
    """Bytes read a second, and operations a second in the type of numbers that is computed in."""

    bandwidth: float
    flops: float


class Probe(ABC):
    """Measures the device of this `name` in each round of the benchmark; `machine` is the median of the rounds, as the
    engines' times are."""

    name: str

    def __init__(self) -> None:
        self._seen: list[Machine] = []

    @property
    def machine(self) -> Machine:
        bandwidths, flops = zip(*((m.bandwidth, m.flops) for m in self._seen), strict=True)
        return Machine(statistics.median(bandwidths), statistics.median(flops))

    @abstractmethod
    def measure(self) -> None: ...


class CpuProbe(Probe):
    """By the best of several ways to read and to multiply in float32."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads, self.name = threads, processor_name()
        self._a, self._b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
        self._long = torch.ones(READ_BYTES // 4)
        self._team = Team(threads, 1)
        weights = allocate(SIZE, READ_BYTES // 4 // SIZE, "float32", 1)
        weights.values[:] = 1
        self._weights, self._square = weights, self._pack(SIZE)

    def measure(self) -> None:
        torch.set_num_threads(self.threads)
        a, b = self._a.numpy(), self._b.numpy()
        with threadpool_limits(self.threads):
            seconds = [_best(lambda: self._a @ self._b), _best(lambda: a @ b), _best(lambda: self._product(a))]
        row = np.ones((1, self._weights.values.shape[2]), np.float32)
        reads = [_best(lambda: self._long.sum()), _best(lambda: self._read(row))]
        self._seen.append(Machine(READ_BYTES / min(reads), 2 * SIZE**3 / min(seconds)))
        torch.set_num_threads(1)  # torch's threads spin for a while, beside whom is measured next

    def _pack(self, size: int) -> Packed:
        packed = allocate(size, size, "float32", 1)
        packed.values[:] = 1
        return packed

    def _product(self, x: np.ndarray) -> None:
        self._team.run(project, x, self._square, np.empty((SIZE, SIZE), np.float32))

    def _read(self, row: np.ndarray) -> None:
        self._team.run(project, row, self._weights, np.empty((1, SIZE), np.float32))


class CudaProbe(Probe):
    """With bfloat16 products."""

    def __init__(self) -> None:
        super().__init__()
        self.name = torch.cuda.get_device_name()
        self._square = torch.randn(4 * SIZE, 4 * SIZE, device="cuda", dtype=torch.bfloat16)
        self._long = torch.ones(4 * READ_BYTES // 4, device="cuda")

    def measure(self) -> None:
        products = _best(lambda: self._waited(lambda: self._square @ self._square))
        reads = _best(lambda: self._waited(self._long.sum))
        self._seen.append(Machine(4 * READ_BYTES / reads, 2 * (4 * SIZE) ** 3 / products))

    @staticmethod
    def _waited(function: Callable[[], object]) -> None:
        function()
        torch.cuda.synchronize()


def _best(function: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


@dataclass(frozen=True)
class Work:
    """Bytes to read and operations to do, at the least."""

    nbytes: float
    flops: float

    def seconds(self, machine: Machine) -> float:
        """The roofline (Williams et al., 2009): whichever of the two takes longer, the other beside it."""
        return max(self.nbytes / machine.bandwidth, self.flops / machine.flops)


def layer_weights(c: DecoderConfig) -> int:
    """Weights of all layers' matrices."""
    projections = c.hidden_size * c.head_size * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
    return c.num_hidden_layers * (projections + 3 * c.hidden_size * c.intermediate_size)


def attention(c: DecoderConfig, pairs: float) -> float:
    """Operations for as many pairs of a token and one that it sees: a key and a value meet every head of each layer."""
    return 4.0 * pairs * c.num_hidden_layers * c.num_attention_heads * c.head_size


def decode(c: DecoderConfig, batch: int, context: int, weight_bytes: float = 4.0, cache_bytes: float = 4.0) -> Work:
    """A step in which `batch` sequences of `context` tokens get one more each. `weight_bytes` of a weight,
    `cache_bytes` of a number in the KV cache."""
    matrices = layer_weights(c) + c.vocab_size * c.hidden_size
    cached = batch * context * c.cached_values
    return Work(weight_bytes * matrices + cache_bytes * cached, 2.0 * batch * matrices + attention(c, batch * context))


def prefill(c: DecoderConfig, tokens: int, weight_bytes: float = 4.0) -> Work:
    """A prompt and the token that follows it: each token sees those before it, the last one alone meets the head."""
    head, layers = c.vocab_size * c.hidden_size, layer_weights(c)
    return Work(
        weight_bytes * (layers + head), 2.0 * (tokens * layers + head) + attention(c, tokens * (tokens + 1) / 2)
    )
