"""Megrez-3B-Omni: pictures, sound and text in, text out. Knows nothing of Ray or HTTP."""

from .omni import Omni

__all__ = ["Omni"]
