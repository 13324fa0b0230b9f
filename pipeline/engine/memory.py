"""How many blocks the KV cache has, from a budget in tokens, in bytes or as a share of the memory that is left."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import MegrezError

log = logging.getLogger(__name__)

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class CacheBudget:
    """One of four: blocks, tokens, bytes, or a fraction of the memory that is free when the weights are loaded."""

    blocks: int | None = None
    tokens: int | None = None
    nbytes: int | None = None
    fraction: float | None = None

    def size(self, block_size: int, block_bytes: int, device: torch.device) -> int:
        """Blocks of `block_size` tokens and `block_bytes` bytes that keep to it. Raises MegrezError."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise MegrezError(f"the KV cache needs one budget, not {', '.join(given) or 'none'}")
        if self.blocks is not None:
            blocks = self.blocks
        elif self.tokens is not None:
            blocks = self.tokens // block_size
        elif self.nbytes is not None:
            blocks = self.nbytes // block_bytes
        else:
            assert self.fraction is not None
            if not 0 < self.fraction < 1:
                raise MegrezError(f"the KV cache's fraction of memory must lie between 0 and 1, not {self.fraction}")
            blocks = int(self.fraction * free_memory(device)) // block_bytes
        if blocks < 1:
            raise MegrezError(
                f"the KV cache's budget ({given}) holds not one block of {block_size} tokens, {block_bytes:,} bytes"
            )
        tokens, size = blocks * block_size, blocks * block_bytes / 1e9
        log.info("KV cache: %d blocks of %d tokens: %d tokens, %.2f GB", blocks, block_size, tokens, size)
        return blocks


def free_memory(device: torch.device) -> int:
    """Bytes that nobody uses: of the GPU; or of the machine, or of the container that this runs in."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = []
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, current, stat = (CGROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.exists() and current.exists() and limit.read_text().strip() != "max":
        counts = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
        files = int(counts.get("inactive_file", 0))  # of the checkpoint, say; given back at need
        free.append(int(limit.read_text()) - int(current.read_text()) + files)
    if not free:
        raise MegrezError(
            "this system doesn't say how much memory is free: give the KV cache a number of bytes or tokens"
        )
    return max(min(free), 0)
