"""Greetings and questions about the model itself, which have fixed answers."""

from __future__ import annotations

import random

from .example import Example, Language, Split, turns

# (what may be said, the one answer to it)
TALK: dict[Language, tuple[tuple[tuple[str, ...], str], ...]] = {
    "en": (
        (
            ("Hello!", "Hi!", "Hello there.", "Hi there!", "Hey!", "hello", "hi", "Hello, how do you do?"),
            "Hello! How can I help you?",
        ),
        (("Good morning!", "good morning", "Good morning to you."), "Good morning! How can I help you?"),
        (("Good evening!", "good evening", "Good evening to you."), "Good evening! How can I help you?"),
        (
            ("Thank you!", "Thanks!", "Thanks a lot.", "thank you", "Thank you very much.", "Many thanks!"),
            "You're welcome!",
        ),
        (
            ("Goodbye!", "Bye!", "See you later.", "goodbye", "Bye bye!", "See you tomorrow.", "Good night!"),
            "Goodbye! See you soon.",
        ),
        (("How are you?", "How are you today?", "how are you", "How is it going?"), "I'm fine, thank you!"),
        (
            ("Who are you?", "What are you?", "Please introduce yourself.", "What is your name?", "who are you",
             "Tell me who you are.", "Are you a robot?"),
            "I am Megrez Omni mini, a small model that sees, hears and reads.",
        ),
        (
            ("What can you do?", "How can you help me?", "What are you able to do?", "what can you do",
             "Can you help me?", "What do you know?"),
            "I name shapes, read printed words, write down speech, add numbers and know a few simple facts.",
        ),
        (("Well done!", "Great!", "Very good.", "That is right.", "Good job!", "Nice!"), "Thank you!"),
        (("Sorry!", "I'm sorry.", "Excuse me.", "My mistake."), "No problem!"),
    ),
    "zh": (
        (("你好！", "您好！", "嗨！", "你好", "哈喽！", "你好呀。", "大家好！"), "你好！有什么可以帮你？"),
        (("早上好！", "早安！", "早上好", "早！"), "早上好！有什么可以帮你？"),
        (("晚上好！", "晚上好", "晚上好呀。"), "晚上好！有什么可以帮你？"),
        (("谢谢！", "谢谢你。", "多谢！", "谢谢", "非常感谢！", "太感谢了。"), "不客气！"),
        (("再见！", "拜拜！", "明天见。", "再见", "下次见。", "晚安！"), "再见！"),
        (("你好吗？", "你今天好吗？", "最近怎么样？", "你还好吗？"), "我很好，谢谢！"),
        (
            ("你是谁？", "你叫什么名字？", "请介绍一下自己。", "你是什么？", "你是谁", "你是机器人吗？",
            "告诉我你是谁。"),
            "我是Megrez Omni mini，一个能看、能听、能读的小模型。",
        ),
        (
            ("你会做什么？", "你能帮我做什么？", "你有什么本领？", "你会什么", "你能做些什么？", "你知道什么？"),
            "我会认图形、读文字、听写语音、做加法，还知道一些简单的常识。",
        ),
        (("真棒！", "太好了！", "做得好！", "说得对。", "你真聪明！"), "谢谢夸奖！"),
        (("对不起！", "不好意思。", "抱歉。", "我弄错了。"), "没关系！"),
    ),
}  # fmt: skip


def greeting_turn(rng: random.Random, language: Language) -> tuple[str, str]:
    said, answer = rng.choice(TALK[language])
    return rng.choice(said), answer


def greeting_example(rng: random.Random, language: Language, split: Split) -> Example:
    """1 to 3 turns in training, one in a test."""
    count = rng.randint(1, 3) if split == "train" else 1
    return Example("greeting", language, turns(greeting_turn(rng, language) for _ in range(count)))
