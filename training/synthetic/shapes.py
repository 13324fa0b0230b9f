"""The outlines of the shapes that scenes show."""

from __future__ import annotations

import math
from functools import cache

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")


def outline(shape: str, tilt: float) -> tuple[list[tuple[float, float]], float]:
    """A turned outline's points, scaled to fill [0, 1]², and its aspect ratio (width / height)."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    points = [(x * cos - y * sin, x * sin + y * cos) for x, y in _upright(shape)]
    left, top = min(x for x, _ in points), min(y for _, y in points)
    width, height = max(x for x, _ in points) - left, max(y for _, y in points) - top
    return [((x - left) / width, (y - top) / height) for x, y in points], width / height


@cache
def _upright(shape: str) -> list[tuple[float, float]]:
    """Points of the upright shape, y downwards."""
    turn = 2 * math.pi
    if shape == "circle":
        return [(math.cos(turn * i / 48), math.sin(turn * i / 48)) for i in range(48)]
    if shape == "square":
        return [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    if shape == "triangle":
        return [(0, -1), (1, 0.75), (-1, 0.75)]
    if shape == "star":
        radii = [(1.0, 0.42)[i % 2] for i in range(10)]
        return [(r * math.sin(turn * i / 10), -r * math.cos(turn * i / 10)) for i, r in enumerate(radii)]
    if shape == "heart":
        steps = [turn * i / 48 for i in range(48)]
        waves = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in steps]
        return [(16 * math.sin(t) ** 3, -wave) for t, wave in zip(steps, waves, strict=True)]
    arm = 0.34
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    corners = [*quarter, *((x, -y) for x, y in reversed(quarter))]
    return [*corners, *((-x, -y) for x, y in corners)]
