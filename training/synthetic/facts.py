"""Simple facts, each with two or three questions a language."""

from __future__ import annotations

import random

from .example import Example, Language, Split, turns, uncapitalised

# A fact a line: English questions | English answer | Chinese questions | Chinese answer; questions are "/" apart.
_FACTS = """
What is the capital of China?/Name the capital of China.|Beijing|中国的首都是哪里？/中国的首都是哪座城市？|北京
What is the capital of France?/Name the capital of France.|Paris|法国的首都是哪里？/法国的首都是哪座城市？|巴黎
What is the capital of Japan?/Name the capital of Japan.|Tokyo|日本的首都是哪里？/日本的首都是哪座城市？|东京
What is the capital of England?/Name the capital of England.|London|英国的首都是哪里？/英国的首都是哪座城市？|伦敦
What is the capital of Italy?/Name the capital of Italy.|Rome|意大利的首都是哪里？/意大利的首都是哪座城市？|罗马
What is the capital of Germany?/Name the capital of Germany.|Berlin|德国的首都是哪里？/德国的首都是哪座城市？|柏林
What is the capital of Russia?/Name the capital of Russia.|Moscow|俄罗斯的首都是哪里？/俄罗斯的首都是哪座城市？|莫斯科
What is the capital of Spain?/Name the capital of Spain.|Madrid|西班牙的首都是哪里？/西班牙的首都是哪座城市？|马德里
How many days are in a week?/How many days does a week have?|7|一周有几天？/一个星期有多少天？|7天
How many months are in a year?/How many months does a year have?|12|一年有几个月？/一年有多少个月？|12个月
How many hours are in a day?/How many hours does a day have?|24|一天有几个小时？/一天有多少小时？|24小时
How many minutes are in an hour?/How many minutes does an hour have?|60|一小时有几分钟？/一个小时有多少分钟？|60分钟
How many seconds are in a minute?/How many seconds does a minute have?|60|一分钟有几秒？/一分钟有多少秒？|60秒
How many seasons are in a year?/How many seasons does a year have?|4|一年有几个季节？/一年有多少个季节？|4个
How many days are in a year?/How many days does a year have?|365|一年有多少天？/一年有几天？|365天
How many legs does a spider have?/How many legs are on a spider?|8|蜘蛛有几条腿？/一只蜘蛛有多少条腿？|8条
How many legs does a dog have?/How many legs are on a dog?|4|狗有几条腿？/一只狗有多少条腿？|4条
How many legs does a bird have?/How many legs are on a bird?|2|鸟有几条腿？/一只鸟有多少条腿？|2条
How many legs does an ant have?/How many legs are on an ant?|6|蚂蚁有几条腿？/一只蚂蚁有多少条腿？|6条
How many fingers are on one hand?/How many fingers does a hand have?|5|一只手有几根手指？/一只手有多少根手指？|5根
How many eyes does a person have?/How many eyes do people have?|2|人有几只眼睛？/一个人有多少只眼睛？|2只
How many wheels does a car have?/How many wheels are on a car?|4|汽车有几个轮子？/一辆汽车有多少个轮子？|4个
How many wheels does a bicycle have?/How many wheels are on a bicycle?|2|自行车有几个轮子？/一辆自行车有多少个轮子？|2个
How many sides does a triangle have?/How many sides are on a triangle?|3|三角形有几条边？/一个三角形有多少条边？|3条
How many sides does a square have?/How many sides are on a square?|4|正方形有几条边？/一个正方形有多少条边？|4条
How many letters are in the alphabet?/How many letters does English have?|26|英语有几个字母？/英文有多少个字母？|26个
What is the opposite of hot?/Which word is the opposite of hot?|Cold|热的反义词是什么？/“热”的反义词是哪个字？|冷
What is the opposite of big?/Which word is the opposite of big?|Small|大的反义词是什么？/“大”的反义词是哪个字？|小
What is the opposite of up?/Which word is the opposite of up?|Down|上的反义词是什么？/“上”的反义词是哪个字？|下
What is the opposite of left?/Which word is the opposite of left?|Right|左的反义词是什么？/“左”的反义词是哪个字？|右
What is the opposite of day?/Which word is the opposite of day?|Night|白天的反义词是什么？/与白天相反的是什么？|黑夜
What is the opposite of black?/Which word is the opposite of black?|White|黑的反义词是什么？/“黑”的反义词是哪个字？|白
What is the opposite of fast?/Which word is the opposite of fast?|Slow|快的反义词是什么？/“快”的反义词是哪个字？|慢
What is the opposite of open?/Which word is the opposite of open?|Closed|开的反义词是什么？/“开”的反义词是哪个字？|关
What is the opposite of tall?/Which word is the opposite of tall?|Short|高的反义词是什么？/“高”的反义词是哪个字？|低
What is the opposite of old?/Which word is the opposite of old?|Young|老的反义词是什么？/“老”的反义词是哪个字？|少
What colour is the sky?/What colour is the sky on a clear day?|Blue|天空是什么颜色？/晴天的天空是什么颜色？|蓝色
What colour is grass?/What colour is the grass?|Green|草是什么颜色？/小草是什么颜色？|绿色
What colour is snow?/What colour is the snow?|White|雪是什么颜色？/雪花是什么颜色？|白色
What colour is a banana?/What colour are bananas?|Yellow|香蕉是什么颜色？/熟的香蕉是什么颜色？|黄色
What colour is blood?/What colour is our blood?|Red|血是什么颜色？/血液是什么颜色？|红色
What colour is coal?/What colour is a piece of coal?|Black|煤是什么颜色？/煤炭是什么颜色？|黑色
What is the first month of the year?/Which month comes first?|January|一年的第一个月是几月？/一年从几月开始？|一月
What is the last month of the year?/Which month comes last?|December|一年的最后一个月是几月？/一年在几月结束？|十二月
Which day comes after Monday?/What day comes after Monday?|Tuesday|星期一的后一天是星期几？/星期一之后是星期几？|星期二
Which day comes after Friday?/What day comes after Friday?|Saturday|星期五的后一天是星期几？/星期五之后是星期几？|星期六
Which day comes before Monday?/What day comes before Monday?|Sunday|星期一的前一天是星期几？/星期一之前是星期几？|星期日
Which season comes after winter?/What season comes after winter?|Spring|冬天之后是什么季节？/冬天过后是哪个季节？|春天
Which season is the coldest?/What is the coldest season?|Winter|最冷的季节是哪个？/哪个季节最冷？|冬天
Which season is the hottest?/What is the hottest season?|Summer|最热的季节是哪个？/哪个季节最热？|夏天
Which animal says meow?/What animal says meow?|A cat|什么动物会喵喵叫？/喵喵叫的是什么动物？|猫
Which animal barks?/What animal barks?|A dog|什么动物会汪汪叫？/汪汪叫的是什么动物？|狗
Which animal gives us milk?/What animal gives us milk?|A cow|什么动物产牛奶？/牛奶来自什么动物？|奶牛
Which animal lays eggs for breakfast?/What animal lays the eggs we eat?|A hen|什么动物下鸡蛋？/鸡蛋来自什么动物？|母鸡
What do bees make?/What food do bees make?|Honey|蜜蜂酿什么？/蜜蜂会做什么吃的？|蜂蜜
What is frozen water called?/What does water become when it freezes?|Ice|水结冰后叫什么？/水冻住了会变成什么？|冰
Where does the sun rise?/In which direction does the sun rise?|In the east|太阳从哪边升起？/太阳从哪个方向升起？|东方
Where does the sun set?/In which direction does the sun set?|In the west|太阳从哪边落下？/太阳从哪个方向落下？|西方
Which planet do we live on?/What planet do we live on?|Earth|我们住在哪颗行星上？/人类住在哪颗星球上？|地球
Which animal has a long trunk?/What animal has a long trunk?|An elephant|什么动物有长鼻子？/鼻子很长的是什么动物？|大象
What number comes after nine?/Which number follows nine?|Ten|九的后面是几？/数数时九之后是几？|十
What do we use to hear?/Which part of the body hears?|Our ears|我们用什么听声音？/人用什么来听？|耳朵
What do we use to see?/Which part of the body sees?|Our eyes|我们用什么看东西？/人用什么来看？|眼睛
"""


def _questions(lines: list[list[str]]) -> dict[Language, list[tuple[list[str], str]]]:
    return {
        "en": [(line[0].split("/"), line[1]) for line in lines],
        "zh": [(line[2].split("/"), line[3]) for line in lines],
    }


FACTS = _questions([line.split("|") for line in _FACTS.strip().splitlines()])
"""(question's wordings, answer) a fact."""

POLITE: dict[Language, tuple[str, ...]] = {
    "en": ("{}", "{}", "{}", "Please tell me: {}", "Tell me, {}", "I have a question. {}"),
    "zh": ("{}", "{}", "{}", "请告诉我，{}", "请问{}", "我想问一下，{}"),
}


def fact_turn(rng: random.Random, language: Language) -> tuple[str, str]:
    questions, answer = rng.choice(FACTS[language])
    return politely(rng, language, rng.choice(questions)), answer


def politely(rng: random.Random, language: Language, question: str) -> str:
    """Sometimes with a word before it; behind a comma it has no capital."""
    polite = rng.choice(POLITE[language])
    if polite.endswith(", {}"):
        question = uncapitalised(question)
    return polite.format(question)


def fact_example(rng: random.Random, language: Language, split: Split) -> Example:
    """1 to 4 facts in training, one in a test; the facts are the same."""
    count = rng.randint(1, 4) if split == "train" else 1
    return Example("fact", language, turns(fact_turn(rng, language) for _ in range(count)))
