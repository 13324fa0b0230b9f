"""What this machine can train in."""

from __future__ import annotations

import torch


def trains_in_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 here: CUDA from Ampere on; CPUs with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
