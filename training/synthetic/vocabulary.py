"""The characters and words that pictures show."""

from __future__ import annotations

import string
import zlib
from functools import cache

from .example import Split

CODE_CHARACTERS = "".join(c for c in string.ascii_uppercase + string.digits if c not in "IO0")
"""Without those letters that look like digits, and the digit that looks like a letter of a word."""

CASELESS = frozenset("coswvxzupk")
"""Letters whose two cases have one shape; a word of these alone is printed in upper case only."""

HELD_OUT = 0.12
"""Part of the words that only the test split shows."""

CHARACTERS_ZH = (
    "一二三四五六七八九十百千上下左右中大小多少红绿蓝黄橙紫棕黑白色日月水火木金土山石田"
    "人口手足目耳的是不了在有我他这个们来到时地为子你说生国年着就那和要她出也得里后自以"
    "会家可天去能对起好看学发过成只把还用道行所然种面前些同开高长从现经头想动方本明点文"
    "最样分做力实心气加见问机知次更外比马鸟鱼牛羊车门书米花草风雨雪电云星海河江湖东西南"
    "北男女父母爸妈爱乐吃喝走跑飞站坐听读写字画图片早晚今春夏秋冬老新快慢远近冷热光声音"
    "衣食住房城市路桥船京工农医院校师友信话词语网页刀弓又止正反平安全美丽真"
)[:240]

_WORDS = (
    # two and three letters
    "at by do go he if in is it me my of on or so to up us we act add age air all and ant any arm art ask "
    "bad bag bar bed bee big bird bit box boy bus but buy can cap car cat cow cry cup cut day dig dog dry ear "
    "eat egg end eye far fan few fig fit fly fog for fox fun gas get gum hat hen her him his hit hot ice ink "
    "jam jar job joy key kid leg let lid lip log lot low mad man map mat men milk mix mud net new nut oak oil "
    "old one our out owl own pan pay pen pet pie pig pin pot put rat raw red rib rob row rug run sad saw say "
    "sea see set she shy sit six sky son sun tax tea ten the tie tin toe top toy try two use van war way web "
    "wet who why win you zoo "
    # four letters
    "able army baby back ball bank base bath bear beat been bell best blue boat body bone book born both bowl "
    "burn busy cake call calm camp card care case cold come cook cool corn cost dark date deep desk dish door "
    "down draw drop duck dust each east easy edge even ever face fact fair fall farm fast feel fire fish five "
    "flag food foot four free frog full game gate gift girl give glad goat gold good gray grow hair half hand "
    "hard head hear help hero hill home hope horn hour idea iron jump just keep kind king kite lake lamp land "
    "last late leaf left life line lion list live long look love make many mark meat mind moon more most move "
    "name near neck nest news nine nose note once only open page pair park part path plan play poem pool post "
    "push rain read rice rich ring road rock roof room rose safe salt sand ship shoe shop show sing size skin "
    "snow soap sock soft song soup star stay stop swim tail talk tall team tent test time tiny town tree true "
    "turn vase very wait walk wall warm wash week west wind wing wish wolf wood work year zero "
    # five letters
    "apple beach bread bring brown chair cheap child clean clock cloud dance dream drink earth eight empty "
    "fresh fruit glass grape grass green happy heart horse house juice knife large laugh lemon light money "
    "month mouse mouth music night ocean onion paper party peace phone piano plant plate queen quick quiet "
    "radio right river round salad seven sheep sleep small smile snake spoon stone storm story sugar sweet "
    "table three tiger today tooth train truck uncle voice watch water wheel white woman world write young "
    # six to eight letters
    "animal answer autumn banana basket bottle branch bridge butter camera carrot circle coffee dinner doctor "
    "family father finger flower forest friend garden guitar hammer island jacket letter market mirror monkey "
    "mother number orange pencil people pepper planet potato rabbit school silver sister spring square street "
    "summer ticket tomato travel window winter yellow airport balloon blanket brother captain chicken cricket "
    "evening holiday kitchen library morning picture rainbow science station teacher weather birthday computer "
    "elephant hospital language mountain notebook sandwich sunshine umbrella"
)
WORDS_EN = _WORDS.split()


@cache
def words(split: Split, max_length: int = 8) -> list[str]:
    """The words that only this split shows, of `max_length` letters at most."""
    return [word for word in WORDS_EN if _held_out(word) == (split == "test") and len(word) <= max_length]


def _held_out(word: str) -> bool:
    return zlib.crc32(f"{word}.".encode()) % 1000 < HELD_OUT * 1000
