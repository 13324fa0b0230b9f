"""What was said or shown some turns ago is asked for again."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any

from .arithmetic import sum_turn
from .example import Example, Language, Split, assistant, user
from .facts import fact_turn
from .outside_slots import SLOTS_ZH
from .scene import Scene, draw, random_scene
from .scene_questions import questions
from .smalltalk import greeting_turn
from .vocabulary import CHARACTERS_ZH
from .words import NUMBERS_EN, NUMBERS_ZH


def _list(words: str) -> list[str]:
    return words.split()


NAMES: dict[Language, dict[Split, list[str]]] = {
    "en": {
        "train": _list(
            "Tom Anna Ben Lucy Jack Emma Oscar Mary Peter Alice Sam Julia David Nina Paul Clara Max Helen Leo Rose "
            "Henry Laura Frank Sarah Adam Ruth Simon Kate Victor Irene Hugo Jane Felix Olga Martin Diana Robert Zoe "
            "Ivan Grace"
        ),
        "test": _list("Nick Eve Carl Sophie Bruno Linda Ralph Amy"),
    },
    "zh": {
        "train": _list(
            "小明 小红 小刚 小丽 小华 小芳 小强 小美 小李 小王 小张 小陈 大伟 建国 志强 海燕 春梅 秀英 "
            "丽娜 文博 思雨 子涵 浩然 雨欣 家豪 晓东 明月 国庆 玉兰 佳怡"
        ),
        "test": _list("小林 小杰 大勇 雪梅 天宇 晓燕"),
    },
}  # fmt: skip
COLOURS: dict[Language, list[str]] = {
    "en": _list("red green blue yellow orange purple brown black white pink grey"),
    "zh": _list("红色 绿色 蓝色 黄色 橙色 紫色 棕色 黑色 白色 粉色 灰色"),
}
ANIMALS: dict[Language, list[str]] = {
    "en": _list("dog cat bird horse fish tiger monkey rabbit lion panda duck sheep elephant bear fox mouse"),
    "zh": _list("狗 猫 鸟 马 鱼 老虎 猴子 兔子 狮子 熊猫 鸭子 羊 大象 熊 狐狸 老鼠"),
}

# kind: (what tells it, the reply, what asks for it); the answer is the value alone.
TOLD: dict[Language, dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]]] = {
    "en": {
        "name": (
            ("My name is {}.", "I am {}.", "Hello, I'm {}.", "Please call me {}.", "Hi, my name is {}."),
            "Nice to meet you, {}.",
            ("What is my name?", "Do you remember my name?", "Who am I?", "What am I called?", "Tell me my name."),
       ),
        "number": (
            ("Remember the number {}.", "Please remember {}.", "My number is {}.", "Keep this number in mind: {}."),
            "OK.",
            ("Which number did I tell you?", "What was the number?", "What number did I give?", "Tell me the number."),
       ),
        "colour": (
            ("My favourite colour is {}.", "I like the colour {} most.", "The colour I love is {}."),
            "OK.",
            ("What is my favourite colour?", "Which colour do I like?", "Do you remember my favourite colour?"),
       ),
        "animal": (
            ("My favourite animal is the {}.", "The animal I like most is the {}.", "I love one animal: the {}."),
            "OK.",
            ("What is my favourite animal?", "Which animal do I like?", "Do you remember my favourite animal?"),
       ),
    },
    "zh": {
        "name": (
            ("我叫{}。", "我的名字是{}。", "你好，我是{}。", "请叫我{}。", "大家都叫我{}。"),
            "很高兴认识你，{}。",
            ("我叫什么名字？", "你记得我的名字吗？", "我是谁？", "我的名字是什么？", "说出我的名字。"),
       ),
        "number": (
            ("请记住数字{}。", "记住{}。", "我的号码是{}。", "请记下这个数：{}。"),
            "好的。",
            ("我告诉你的数字是多少？", "刚才的数字是什么？", "你记住的数是几？", "请再说一遍那个数字。"),
       ),
        "colour": (
            ("我最喜欢的颜色是{}。", "我最爱{}。", "我喜欢的颜色是{}。"),
            "好的。",
            ("我最喜欢什么颜色？", "我喜欢的颜色是什么？", "你记得我喜欢的颜色吗？"),
       ),
        "animal": (
            ("我最喜欢的动物是{}。", "我最爱的动物是{}。", "我喜欢一种动物：{}。"),
            "好的。",
            ("我最喜欢什么动物？", "我喜欢的动物是什么？", "你记得我喜欢的动物吗？"),
       ),
    },
}  # fmt: skip

PICTURE = 0.3  # how often a picture is to be remembered
MADE_UP = 0.7  # how often a name in training is one that nobody has
RARE = (0x4E00, 0x9FA5)  # Chinese characters in Unicode
SELDOM = sorted({c for values in SLOTS_ZH.values() for c in values if RARE[0] <= ord(c) < RARE[1]})
"""Characters, most of them tokens of their own, that are read in questions and said in no answer but a name."""
SYLLABLES = _list("ab ad al am an ar be bo ca da de di do el em en er fi ga ha in ka ki la le li lo lu ma me mi mo")
SYLLABLES += _list("na ne ni no ob or pa pe ra re ri ro ru sa se si so ta te ti to ul um va ve vi wa wen yo za zi")
Turns = list[dict[str, Any]]


def memory_example(
    rng: random.Random, language: Language, split: Split, drawn: Callable[[Scene], Any] | None = None
) -> Example:
    """One or two things are told, or a picture shown; 0 to 2 other turns follow (1 or 2 after a picture),
    and the last turn asks. `drawn` draws instead of `draw`."""
    made = _picture(rng, language, split, drawn or draw) if rng.random() < PICTURE else _told(rng, language, split)
    return Example("memory", language, made)


def told_example(rng: random.Random, language: Language, split: Split) -> Example:
    """`memory_example` without pictures."""
    return Example("memory", language, _told(rng, language, split))


def _told(rng: random.Random, language: Language, split: Split) -> Turns:
    kinds = rng.sample(list(TOLD[language]), 1 if rng.random() < 0.6 else 2)
    conversation, asked = [], []
    for kind in kinds:
        value = _value(rng, language, split, kind)
        told, reply, questions_ = TOLD[language][kind]
        conversation += [user(rng.choice(told).format(value)), assistant(reply.format(value))]
        asked.append((rng.choice(questions_), value))
    conversation += _unrelated(rng, language, split, rng.randint(0, 2), numbers="number" not in kinds)
    rng.shuffle(asked)
    for question, value in asked[: rng.randint(1, len(asked))]:
        conversation += [user(question), assistant(value)]
    return conversation


def _picture(rng: random.Random, language: Language, split: Split, draw: Callable[[Scene], Any]) -> Turns:
    scene = random_scene(rng)
    asked = questions(rng, scene, language)
    (first, first_answer), (last, last_answer) = rng.sample(asked, 2)
    conversation = [user(first, image=draw(scene)), assistant(first_answer)]
    conversation += _unrelated(rng, language, split, rng.randint(1, 2))
    return [*conversation, user(last), assistant(last_answer)]


def _unrelated(rng: random.Random, language: Language, split: Split, count: int, numbers: bool = True) -> Turns:
    """Without `numbers` none is answered, lest "What was the number?" could mean it."""
    conversation: Turns = []
    while len(conversation) < 2 * count:
        kind = rng.randrange(3)
        if kind == 0:
            question, answer = sum_turn(rng, language, split)
        else:
            question, answer = (fact_turn if kind == 1 else greeting_turn)(rng, language)
        if numbers or not is_number(answer):
            conversation += [user(question), assistant(answer)]
    return conversation


def is_number(answer: str) -> bool:
    return answer.isdecimal() or answer.lower() in NUMBERS_EN or set(answer) <= set(NUMBERS_ZH)


def _value(rng: random.Random, language: Language, split: Split, kind: str) -> str:
    if kind == "number":
        return str(rng.randrange(10, 10 ** rng.randint(2, 4)))
    if kind == "name" and split == "train" and rng.random() < MADE_UP:
        return made_up_name(rng, language)
    return rng.choice({"name": NAMES[language][split], "colour": COLOURS[language], "animal": ANIMALS[language]}[kind])


def made_up_name(rng: random.Random, language: Language, rare: float = 0.2) -> str:
    """A name to be remembered letter by letter, or even byte by byte; none of the test's. `rare`: how often a Chinese
    one ends in any character of Unicode's."""
    while True:
        if language == "zh":
            kind = rng.random()
            last = chr(rng.randrange(*RARE)) if kind < rare else rng.choice(SELDOM if kind < 0.4 else CHARACTERS_ZH)
            name = "".join(rng.choices(CHARACTERS_ZH, k=rng.randint(1, 2))) + last
        else:
            name = "".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))).capitalize()
            name += rng.choice(("", rng.choice(string.ascii_lowercase)))
        if name not in NAMES[language]["test"]:
            return name
