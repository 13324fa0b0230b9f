"""The mark of tests that letter pictures."""

from __future__ import annotations

import pytest

from training.synthetic.fonts import FACES, ROOT

needs_fonts = pytest.mark.skipif(
    not all((ROOT / file).exists() for faces in FACES.values() for file in faces), reason="Debian's fonts are missing"
)
