"""Speakers that espeak-ng doesn't bring: from its few dozen alone an encoder doesn't learn what all voices share."""

from __future__ import annotations

import random

LENGTH, STRAY = (0.88, 1.25), (0.88, 1.2)
"""Of the formants' frequencies: what a throat's length makes of all, and how far each of the lowest three lies from
that. The lowest three of espeak's own speakers lie at 0.6 to 1.5 times the usual, but for a few odd ones."""

LOWEST = 3
FORMANTS = 8  # and formant 0, the voice bar below them

BREATHY, ECHOING = 0.25, 0.35


def random_speaker(rng: random.Random) -> str:
    """The text of an espeak-ng variant (its docs/voices.md has the syntax).

    A throat's formants (frequency, strength and width, in percent of the usual), the pitch in Hz between which it
    varies, how much of vowels and consonants is heard, and sometimes breath or an echo (ms, percent).
    """
    length, low = rng.uniform(*LENGTH), rng.randint(65, 190)
    lines = [
        "language variant",
        f"pitch {low} {int(low * rng.uniform(1.25, 1.9))}",
        f"formant 0 {rng.randint(90, 115)} {rng.randint(80, 120)} {rng.randint(90, 150)}",
    ]
    for number in range(1, FORMANTS + 1):
        stray = rng.uniform(*STRAY) if number <= LOWEST else rng.uniform(0.9, 1.1)
        strength = rng.randint(70, 160) if number <= LOWEST else rng.randint(50, 150)
        lines.append(f"formant {number} {int(100 * length * stray)} {strength} {rng.randint(75, 160)}")
    lines += [
        f"voicing {rng.randint(30, 140)}",
        f"consonants {rng.randint(50, 120)} {rng.randint(20, 140)}",
        f"intonation {rng.randint(1, 4)}",
        f"roughness {rng.choice((0, 0, 1, 2, 3))}",
        f"flutter {rng.randint(0, 4)}",
    ]
    if rng.random() < BREATHY:
        lines.append("breath " + " ".join(str(rng.randint(0, 10)) for _ in range(FORMANTS)))
        lines.append("breathw 150 150 200 200 400 400 600 600")
    if rng.random() < ECHOING:
        lines.append(f"echo {rng.randint(10, 150)} {rng.randint(10, 55)}")
    return "\n".join([*lines, ""])
