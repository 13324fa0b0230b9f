"""What this machine can train in, and with which memory."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}
"""Environment in which glibc keeps what was freed, in huge pages where there are any. Else each large tensor of each
step is mapped and touched anew: a step of the vision encoder took 1.25 times as long. And in which oneDNN keeps few
compiled products: batches differ in length, and with the 1,024 of its default what they leave lies all over the heap,
in which malloc then searched for a third of the time, after 600 steps of the language model."""


def keep_memory() -> None:
    """Starts this program again under KEEP_MEMORY, unless it runs so. glibc reads it at the start only."""
    if sys.platform == "linux" and "MALLOC_MMAP_MAX_" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEP_MEMORY)


def rounded_up(length: int) -> int:
    """To a multiple of the power of two that is an eighth of it at most, for tensors of few different sizes on CPUs.

    glibc keeps freed blocks of half a megabyte and more in one list by their sizes, and goes through it for each new
    tensor: for a quarter of the time where every batch had its own number of tokens, a tenth where it was rounded up.
    """
    multiple = 1 << max((length // 8).bit_length() - 1, 0)
    return -(-length // multiple) * multiple


def trains_in_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 here: CUDA from Ampere on; CPUs with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """As Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()
