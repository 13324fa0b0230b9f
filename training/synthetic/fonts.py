"""The fonts that pictures are lettered with; those of the test split are never trained on."""

from __future__ import annotations

import string
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .example import Language, Split
from .vocabulary import CHARACTERS_ZH

Font = tuple[str, int]
"""(file, index of the face within it)."""

ROOT = Path("/usr/share/fonts")

PACKAGES = " ".join(Path(__file__).with_name("fonts.txt").read_text("utf-8").split())

FACES: dict[tuple[Language, Split], dict[str, str]] = {
    ("en", "train"): {
        "truetype/dejavu/DejaVuSans.ttf": "DejaVu Sans",
        "truetype/dejavu/DejaVuSans-Bold.ttf": "DejaVu Sans",
        "truetype/dejavu/DejaVuSansMono.ttf": "DejaVu Sans Mono",
        "truetype/dejavu/DejaVuSerif.ttf": "DejaVu Serif",
        "truetype/liberation/LiberationSans-Regular.ttf": "Liberation Sans",
        "truetype/liberation/LiberationSans-Bold.ttf": "Liberation Sans",
        "truetype/liberation/LiberationSerif-Regular.ttf": "Liberation Serif",
        "truetype/liberation/LiberationMono-Regular.ttf": "Liberation Mono",
        "truetype/freefont/FreeSans.ttf": "FreeSans",
        "truetype/freefont/FreeSerif.ttf": "FreeSerif",
        "truetype/freefont/FreeMonoBold.ttf": "FreeMono",
        "truetype/open-sans/OpenSans-Regular.ttf": "Open Sans",
        "truetype/open-sans/OpenSans-Bold.ttf": "Open Sans",
    },
    ("en", "test"): {
        "truetype/lato/Lato-Regular.ttf": "Lato",
        "truetype/lato/Lato-Bold.ttf": "Lato",
        "truetype/roboto/unhinted/RobotoTTF/Roboto-Regular.ttf": "Roboto",
        "truetype/roboto/unhinted/RobotoTTF/Roboto-Bold.ttf": "Roboto",
        "truetype/noto/NotoSerif-Regular.ttf": "Noto Serif",
    },
    ("zh", "train"): {
        "opentype/noto/NotoSansCJK-Regular.ttc": "Noto Sans CJK SC",
        "opentype/noto/NotoSansCJK-Bold.ttc": "Noto Sans CJK SC",
        "truetype/wqy/wqy-zenhei.ttc": "WenQuanYi Zen Hei",
        "truetype/arphic/uming.ttc": "AR PL UMing CN",
        "truetype/arphic-gbsn00lp/gbsn00lp.ttf": "AR PL SungtiL GB",
        "truetype/arphic-gkai00mp/gkai00mp.ttf": "AR PL KaitiM GB",
    },
    ("zh", "test"): {
        "truetype/wqy/wqy-microhei.ttc": "WenQuanYi Micro Hei",
        "opentype/noto/NotoSerifCJK-Regular.ttc": "Noto Serif CJK SC",
    },
}

UNASSIGNED = "\uffff"
"""A non-character, which every font draws as its empty box."""


@cache
def fonts(language: Language, split: Split) -> list[Font]:
    """The faces of a split that have all characters of the language.

    Raises FileNotFoundError, with the Debian packages to install.
    """
    needed = string.ascii_letters + string.digits + (CHARACTERS_ZH if language == "zh" else "")
    found = [_face(ROOT / file, family) for file, family in FACES[language, split].items()]
    return [font for font in found if has_glyphs(font, needed)]


@lru_cache(maxsize=512)
def load(font: Font, size: int) -> ImageFont.FreeTypeFont:
    """A face at `size` pixels per em."""
    file, index = font
    return ImageFont.truetype(file, size, index, layout_engine=ImageFont.Layout.BASIC)


def has_glyphs(font: Font, characters: str) -> bool:
    """Whether each character has ink of its own, other than the box of a missing one."""
    missing = _ink(font, UNASSIGNED)
    inks = (_ink(font, character) for character in characters)
    return all(any(ink) and ink != missing for ink in inks)


def _face(path: Path, family: str) -> Font:
    if not path.exists():
        raise FileNotFoundError(f"the font {path} is missing; apt-get install {PACKAGES}")
    index = 0
    while True:
        try:
            face = load((str(path), index), 16)
        except OSError:
            raise FileNotFoundError(f"{path} has no face {family!r}; apt-get install {PACKAGES}") from None
        if face.getname()[0] == family:
            return str(path), index
        index += 1


def _ink(font: Font, character: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((4, 2), character, fill=255, font=load(font, 20))
    return image.tobytes()
