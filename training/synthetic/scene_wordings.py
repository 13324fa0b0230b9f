"""How questions about a scene are worded, and their answers, in both languages."""

from __future__ import annotations

import re

from .example import Language
from .scene import COLOURS
from .shapes import SHAPES

SHAPES_ZH = dict(zip(SHAPES, ("圆形", "正方形", "三角形", "星形", "心形", "十字形"), strict=True))
COLOURS_ZH = dict(zip(COLOURS, ("红色", "绿色", "蓝色", "黄色", "橙色", "紫色", "棕色", "黑色"), strict=True))

SHAPE_NAMES: dict[Language, dict[str, str]] = {"en": {shape: shape for shape in SHAPES}, "zh": SHAPES_ZH}
COLOUR_NAMES: dict[Language, dict[str, str]] = {"en": {colour: colour for colour in COLOURS}, "zh": COLOURS_ZH}

CELLS_EN = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
CELLS_ZH = ("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角")

WORDINGS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "colour": ("What colour is the {shape}?", "Which colour is the {shape}?", "What is the colour of the {shape}?"),
        "only colour": ("What colour is it?", "What colour is this shape?", "Which colour is it?"),
        "shape": ("Which shape is {colour}?", "What shape is {colour}?", "What is the {colour} shape?"),
        "only shape": ("What shape is this?", "Which shape is this?", "What shape is it?"),
        "count": ("How many shapes are there?", "How many shapes do you see?", "How many shapes can you see?"),
        "count shape": (
            "How many {shapes} are there?",
            "How many {shapes} do you see?",
            "How many {shapes} can you see?",
        ),
        "count colour": ("How many {colour} shapes are there?", "How many shapes are {colour}?"),
        "place": ("Where is the {shape}?", "Where can you see the {shape}?", "Where do you see the {shape}?"),
        "across": ("Is the {shape} left or right of the {other}?", "Is the {shape} right or left of the {other}?"),
        "along": ("Is the {shape} above or below the {other}?", "Is the {shape} below or above the {other}?"),
        "exists": ("Is there {a} {shape}?", "Do you see {a} {shape}?"),
        "exists both": ("Is there {b} {colour} {shape}?", "Do you see {b} {colour} {shape}?"),
    },
    "zh": {
        "colour": ("{shape}是什么颜色？", "{shape}的颜色是什么？", "{shape}是哪个颜色的？"),
        "only colour": ("它是什么颜色？", "这个图形是什么颜色？"),
        "shape": ("什么图形是{colour}的？", "{colour}的是什么图形？", "哪个图形是{colour}的？"),
        "only shape": ("这是什么图形？", "图片里是什么图形？"),
        "count": ("图片里有几个图形？", "一共有几个图形？", "有多少个图形？"),
        "count shape": ("图片里有几个{shape}？", "一共有几个{shape}？", "有多少个{shape}？"),
        "count colour": ("图片里有几个{colour}的图形？", "有多少个{colour}的图形？"),
        "place": ("{shape}在哪里？", "{shape}在图片的什么位置？"),
        "across": ("{shape}在{other}的左边还是右边？", "{shape}在{other}的右边还是左边？"),
        "along": ("{shape}在{other}的上面还是下面？", "{shape}在{other}的下面还是上面？"),
        "exists": ("图片里有{shape}吗？", "图片里有没有{shape}？"),
        "exists both": ("图片里有{colour}的{shape}吗？", "图片里有没有{colour}的{shape}？"),
    },
}

WRITTEN: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "colour": ("Tell me the colour of the {shape}.", "What colour does the {shape} have?"),
        "shape": ("Name the {colour} shape.",),
        "count": ("Count the shapes.", "What is the number of shapes?"),
        "count shape": ("Count the {shapes}.", "What is the number of {shapes}?", "How many {shapes}?"),
        "count colour": ("Count the {colour} shapes.", "What is the number of {colour} shapes?"),
        "place": ("In which part of the picture is the {shape}?", "Find the {shape}."),
        "exists": ("Can you see {a} {shape}?", "Does the picture show {a} {shape}?"),
        "exists both": ("Can you see {b} {colour} {shape}?", "Does the picture show {b} {colour} {shape}?"),
    },
    "zh": {
        "colour": ("请说出{shape}的颜色。", "{shape}是啥颜色？"),
        "shape": ("请说出{colour}的图形。",),
        "count": ("数一数图形。", "图形有几个？"),
        "count shape": ("数一数{shape}。", "{shape}有几个？"),
        "count colour": ("数一数{colour}的图形。", "{colour}的图形有几个？"),
        "place": ("{shape}在图中哪个位置？", "找到{shape}。"),
        "exists": ("有{shape}吗？", "能看到{shape}吗？"),
        "exists both": ("有{colour}的{shape}吗？", "能看到{colour}的{shape}吗？"),
    },
}
"""More wordings, never spoken: the recogniser of speech has no units for many of their words."""

ANSWERS: dict[Language, dict[str, str]] = {
    "en": {w: w for w in ("left", "right", "above", "below", "yes", "no")} | {"missing": "There is no {shape}."},
    "zh": {"left": "左边", "right": "右边", "above": "上面", "below": "下面", "yes": "有", "no": "没有"}
    | {"missing": "图片里没有{shape}。"},
}


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def a_or_an(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


_FIXED_WORDS = re.sub(r"{\w+}", "", " ".join(sum(WORDINGS["en"].values(), ()))).lower()

SPOKEN_WORDS_EN = frozenset(
    (*re.findall("[a-z]+", _FIXED_WORDS), *SHAPES, *(plural(shape) for shape in SHAPES), *COLOURS, "a", "an")
)
"""Every English word that spoken questions use, in lower case."""
