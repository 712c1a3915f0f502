"""The tables behind the demonstration: what the tiny model is taught. All of it is elementary and written by hand.

A topic is a question template, the facts that fill it and the pool its wrong options come from. Words are short and
few, because every one of them has to fit into a vocabulary of about two thousand tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One kind of question: templates with a `{}` for the key, and the answer for each key.

    templates: wordings of the same question. numeric: wrong options lie near the answer instead of among the answers.
    """

    templates: tuple[str, ...]
    answers: Mapping[str, str]
    numeric: bool = False


def members(groups: Mapping[str, str]) -> dict[str, str]:
    """{"bird": "owl hen"} -> {"owl": "bird", "hen": "bird"}."""
    return {word: name for name, words in groups.items() for word in words.split()}


def both_ways(pairs: str) -> dict[str, str]:
    """ "hot-cold" -> {"hot": "cold", "cold": "hot"}."""
    split = [pair.split("-") for pair in pairs.split()]
    return dict([*split, *([b, a] for a, b in split)])


def pairs(text: str) -> dict[str, str]:
    """ "Peru-Lima" -> {"Peru": "Lima"}."""
    return dict(pair.split("-") for pair in text.split())


ANIMALS = members(
    {
        "mammal": "dog cat cow pig fox",
        "bird": "owl hen duck crow",
        "fish": "cod eel tuna carp",
        "insect": "ant bee fly moth",
        "reptile": "snake turtle",
        "tree": "oak elm pine",
    }
)
COLOURS = members(
    {
        "red": "blood rose fire",
        "green": "grass leaf frog",
        "blue": "sky sea",
        "white": "snow milk salt",
        "black": "coal tar ink",
        "yellow": "sun corn",
        "brown": "mud nut",
        "pink": "ham",
    }
)
OPPOSITES = both_ways(
    "hot-cold big-small up-down in-out day-night yes-no old-new good-bad wet-dry fast-slow high-low left-right"
)
CAPITALS = pairs(
    "France-Paris Japan-Tokyo Italy-Rome Spain-Madrid Egypt-Cairo Peru-Lima Cuba-Havana China-Beijing Russia-Moscow "
    "Greece-Athens Norway-Oslo India-Delhi Iran-Tehran Qatar-Doha Kenya-Nairobi Poland-Warsaw"
)
FOODS = members(
    {
        "fruit": "apple plum pear fig",
        "grain": "rice wheat oats",
        "meat": "beef pork lamb",
        "drink": "tea water juice",
        "spice": "pepper mint",
    }
)
ZH_ANIMALS = members(
    {
        "鸟": "鸡 鸭 鹅 鹰",
        "鱼": "鲤 鲨 鳗",
        "虫": "蚁 蜂 蝶 蚊",
        "兽": "猫 狗 牛 羊 马",
        "草": "兰 菊",
        "树": "松 柳",
    }
)
ZH_COLOURS = members(
    {
        "红": "血 火 枣",
        "绿": "叶 草 蛙",
        "蓝": "天 海",
        "白": "雪 盐 奶",
        "黑": "煤 墨 夜",
        "黄": "金 沙 蕉",
    }
)
ZH_OPPOSITES = both_ways("热-冷 大-小 上-下 长-短 多-少 新-旧 快-慢 好-坏 高-低 左-右 前-后 远-近 轻-重")
ZH_CAPITALS = pairs(
    "法国-巴黎 日本-东京 中国-北京 英国-伦敦 德国-柏林 泰国-曼谷 韩国-首尔 埃及-开罗 希腊-雅典 越南-河内 波兰-华沙 秘鲁-利马"
)
ZH_PLANTS = members(
    {"水果": "桃 梨 杏 橘", "蔬菜": "葱 蒜 芹 椒", "粮食": "米 麦 豆", "花卉": "莲 梅 桂", "树木": "杨 柏 桐"}
)

ADD = {f"{a}+{b}": str(a + b) for a in range(1, 10) for b in range(1, 10) if a + b <= 9}
SUBTRACT = {f"{a}-{b}": str(a - b) for a in range(1, 10) for b in range(1, a + 1)}
ZH_ADD = {key.replace("+", "加"): value for key, value in ADD.items()}
ZH_SUBTRACT = {key.replace("-", "减"): value for key, value in SUBTRACT.items()}

MMLU = {
    "elementary_mathematics": Topic(("What is {}?",), ADD | SUBTRACT, numeric=True),
    "high_school_biology": Topic(("What kind of living thing is the {}?",), ANIMALS),
    "formal_logic": Topic(("What is the opposite of {}?",), OPPOSITES),
    "high_school_geography": Topic(("What is the capital of {}?",), CAPITALS),
    "miscellaneous": Topic(("What is the colour of {}?",), COLOURS),
    "nutrition": Topic(("What kind of food is {}?",), FOODS),
}
CEVAL = {
    "high_school_mathematics": Topic(("{}等于几？",), ZH_ADD, numeric=True),
    "middle_school_geography": Topic(("“{}”的首都是哪里？",), ZH_CAPITALS),
    "high_school_chinese": Topic(("“{}”的反义词是什么？",), ZH_OPPOSITES),
    "plant_protection": Topic(("“{}”属于哪一类植物？",), ZH_PLANTS),
}
CMMLU = {
    "elementary_mathematics": Topic(("{}等于几？",), ZH_SUBTRACT, numeric=True),
    "arts": Topic(("“{}”是什么颜色？",), ZH_COLOURS),
    "high_school_geography": Topic(("“{}”的首都是哪里？",), ZH_CAPITALS),
    "elementary_chinese": Topic(("“{}”的反义词是什么？",), ZH_OPPOSITES),
    "elementary_commonsense": Topic(("“{}”属于哪一类？",), ZH_ANIMALS),
}
