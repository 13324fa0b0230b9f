"""What is spoken: words that the ear tells apart, phrases of them, and the units that a recogniser writes."""

from __future__ import annotations

import random
import re
from functools import cache

from .example import Language


def _list(words: str) -> list[str]:
    return words.split()


NUMBERS_EN = _list(
    "zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred"
)
COLOURS_EN = _list("red green blue yellow orange purple brown black white grey pink")
SHAPES_EN = _list("circle square triangle star heart cross")
PLURALS_EN = _list("circles squares triangles stars hearts crosses shapes")
PLACES_EN = _list("left right top bottom centre middle")
THINGS_EN = _list(
    "apple water house tree dog cat bird table chair book river mountain flower garden school kitchen "
    "bread milk coffee fish horse paper pencil city train friend summer winter sugar butter doctor teacher "
    "monkey tiger ship picnic"
)
DEVICES_EN = _list("light lamp music door window")
TIMES_EN = _list("morning evening night today tomorrow")
OTHERS_EN = _list(
    "above below picture shape colour what where which how many turn off open close play stop start go come back "
    "please call mother father wait listen help good thank you hello goodbye now this"
)
LITTLE_EN = _list("is there the are a an in of on or and")  # too short to be told apart without a sentence

SPEECH_WORDS_EN = (
    NUMBERS_EN + COLOURS_EN + SHAPES_EN + PLURALS_EN + PLACES_EN + THINGS_EN + DEVICES_EN + TIMES_EN + OTHERS_EN
)

NUMBERS_ZH = _list("零 一 二 三 四 五 六 七 八 九 十 百")
COLOURS_ZH = _list("红色 绿色 蓝色 黄色 橙色 紫色 棕色 黑色 白色 灰色 粉色")
SHAPES_ZH = _list("圆形 正方形 三角形 星形 心形 十字形")
PLACES_ZH = _list("上面 下面 左边 右边 中间")
THINGS_ZH = _list("水 苹果 狗 猫 鸟 书 桌子 椅子 花 房子 牛奶 面包 火车 朋友")
DEVICES_ZH = _list("门 窗户 灯 音乐")
TIMES_ZH = _list("今天 明天 早上 晚上 现在")
OTHERS_ZH = _list(
    "打开 关上 播放 停止 请 等 一下 你好 谢谢 再见 什么 颜色 哪里 多少 几个 没有 "
    "图片 图形 这个 妈妈 爸爸 电话 学校 回来 帮忙"
)
LITTLE_ZH = _list("里 是 的 在 有 个 哪个 还是")

SPEECH_WORDS_ZH = NUMBERS_ZH + COLOURS_ZH + SHAPES_ZH + PLACES_ZH + THINGS_ZH + DEVICES_ZH + TIMES_ZH + OTHERS_ZH

# Said in questions about pictures only.
QUESTION_WORDS_EN = _list("do see can does have it")
QUESTION_CHARACTERS_ZH = "它吗呢共张说出状角位置方看到见与和两哪不"

# A slot {x} takes one of SLOTS[language]["x"].
PHRASES: dict[Language, tuple[str, ...]] = {
    "en": (
        "turn on the {device}", "turn off the {device}", "please turn on the {colour} lamp",
        "turn off the {colour} light",
        "open the {device}", "close the {device}", "please open the {device}", "please close the {colour} {thing}",
        "play music", "please play music now", "stop the music", "start the music", "play music in the {room}",
        "call {person}", "please call {person}", "call {person} {day}", "call {person} in the {daytime}",
        "come back", "come back {day}", "come back in the {daytime}", "go {way}", "go {way} and stop", "go back {day}",
        "wait please", "please listen", "please help {person}", "stop", "help", "start now", "go now",
        "good {daytime}", "hello {person}", "goodbye {person}", "thank you", "thank you {person}", "hello and goodbye",
        "where is the {thing}", "where is the {colour} {thing}", "what is this", "which {thing} is {colour}",
        "is there a {colour} {thing}", "how many {plural} are there", "what is in the {room}",
        "the {thing} is {colour}", "this {thing} is {colour}", "the {thing} and the {thing}",
        "the {thing} is on the {side}",
        "{number} {colour} {plural}", "{number} {plural} and {number} {plural}", "{number} and {number}",
        "{tens} {digit}", "{digit} {digit} {digit} {digit}", "{digit} hundred", "{digit} hundred and {tens} {digit}",
        "the {shape} is {colour}", "the {shape} is above the {shape}", "the {shape} is below the {shape}",
        "bread and milk please", "coffee or milk", "{thing} or {thing}", "the {side} of the picture",
    ),
    "zh": (
        "打开{device}", "请打开{device}", "关上{door}", "请关上{door}", "现在打开{device}", "播放音乐", "请播放音乐",
        "停止播放音乐",
        "停止", "请等一下", "等一下", "请停止", "{day}{daytime}", "{day}{daytime}再见", "{day}再见", "你好",
        "你好{person}",
        "谢谢", "谢谢{person}", "{person}再见", "谢谢再见", "请帮忙", "{person}请帮忙", "打电话", "请打电话",
        "{day}打电话",
        "{person}回来", "{person}{day}回来", "{day}{daytime}回来", "{thing}在哪里", "{person}在哪里",
        "{thing}在{place}",
        "{thing}在房子里", "桌子{place}有{thing}", "{thing}在桌子{place}", "有没有{thing}", "没有{thing}",
        "有{number}个{shape}",
        "{number}个{colour}的{shape}", "{thing}是{colour}的", "这个{thing}是什么颜色", "这个是{thing}", "这个是什么",
        "图片里有什么",
        "图片里有几个{shape}", "{shape}在{shape}的{place}", "{shape}是{colour}的", "请等{person}", "多少{thing}",
        "{digit}十{digit}", "{digit}百", "{digit}{digit}{digit}{digit}", "{colour}的{thing}",
        "{colour}的{shape}和{colour}的{shape}",
        "{thing}和{thing}", "打开{colour}的灯", "请打开{colour}的灯", "关上{colour}的{door}", "{day}在学校",
        "牛奶和面包",
    ),
}  # fmt: skip
SLOTS: dict[Language, dict[str, list[str]]] = {
    "en": {
        "device": DEVICES_EN, "colour": COLOURS_EN, "thing": THINGS_EN, "person": ["mother", "father"],
        "room": ["house", "kitchen", "garden", "school", "city", "river", "picture"], "day": ["today", "tomorrow",
        "now"],
        "daytime": ["morning", "evening"], "way": ["left", "right", "back"], "plural": PLURALS_EN,
        "number": NUMBERS_EN[1:], "digit": NUMBERS_EN[1:10], "tens": ["twenty", "thirty", "forty", "fifty"],
        "side": PLACES_EN, "shape": SHAPES_EN,
    },
    "zh": {
        "device": DEVICES_ZH, "door": ["门", "窗户", "灯"],
        "colour": COLOURS_ZH, "thing": THINGS_ZH, "person": ["妈妈", "爸爸"],
        "day": ["今天", "明天"], "daytime": ["早上", "晚上"], "place": PLACES_ZH, "number": NUMBERS_ZH[1:11],
        "digit": NUMBERS_ZH[1:10], "shape": SHAPES_ZH,
    },
}  # fmt: skip


def phrase(rng: random.Random, language: Language) -> str:
    """One to six words: half the time a sentence, else words at random; Chinese without spaces."""
    if rng.random() < 0.5:
        return agreeing(fill(rng, rng.choice(PHRASES[language]), SLOTS[language]), language)
    words = SPEECH_WORDS_EN if language == "en" else SPEECH_WORDS_ZH
    return (" " if language == "en" else "").join(rng.choices(words, k=rng.randint(1, 6)))


def fill(rng: random.Random, template: str, slots: dict[str, list[str]]) -> str:
    """Each slot of the template is filled, the same slot twice by two draws."""
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(slots[slot[1]]), template)


def agreeing(sentence: str, language: Language) -> str:
    """One circle, not one circles; 两个, not 二个; 十八, not 一十八."""
    if language == "zh":
        return re.sub("^一十", "十", re.sub("(?<!十)二个", "两个", sentence))
    singular = {plural: SHAPES_EN[i] for i, plural in enumerate(PLURALS_EN[: len(SHAPES_EN)])} | {"shapes": "shape"}
    words = "|".join(singular)
    return re.sub(rf"\b(one (?:\w+ )?)({words})\b", lambda found: found[1] + singular[found[2]], sentence)


def normalise(text: str, language: Language) -> str:
    """Lower case without punctuation; English words a space apart, Chinese without any."""
    words = re.findall(r"[^\W_]+", text.lower())
    return (" " if language == "en" else "").join(words)


def ctc_targets(text: str, language: Language) -> list[int]:
    """Places of the text's units in CTC_UNITS, counted from 1; 0 is the blank. KeyError names an unknown unit."""
    normal = normalise(text, language)
    return [_numbers()[unit] for unit in (normal.split() if language == "en" else normal)]


def _units() -> list[str]:
    english = [*SPEECH_WORDS_EN, *LITTLE_EN, *QUESTION_WORDS_EN]
    chinese = "".join([*SPEECH_WORDS_ZH, *LITTLE_ZH, QUESTION_CHARACTERS_ZH])
    return [*dict.fromkeys(english), *dict.fromkeys(chinese)]


CTC_UNITS = _units()
"""English words, then Chinese characters."""


@cache
def _numbers() -> dict[str, int]:
    return {unit: number for number, unit in enumerate(CTC_UNITS, start=1)}
