"""The words of the scenes in English and Chinese: every way in which a shape, a colour or a relation may be said."""

from __future__ import annotations

from dataclasses import dataclass

LANGUAGES = ("en", "zh")

Forms = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What may be said for each thing meant; the first form is the usual one.

    `counts` say how many there are in all; `one` does not rule out more. `at` opens a place or a relation (Chinese),
    `pauses` part the clauses, `fillers` mean nothing.
    """

    shapes: Forms
    colours: Forms
    sizes: Forms
    relations: Forms
    places: Forms
    counts: dict[str, int]
    nouns: tuple[str, ...]
    one: tuple[str, ...]
    at: tuple[str, ...]
    pauses: tuple[str, ...]
    fillers: tuple[str, ...]


ENGLISH = Lexicon(
    shapes={
        "circle": ("circle", "disc"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "cross": ("cross", "plus sign"),
        "star": ("star",),
        "heart": ("heart",),
        "ring": ("ring", "hoop"),
        "moon": ("moon", "crescent"),
    },
    colours={
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
    },
    sizes={"small": ("small", "little"), "large": ("large", "big")},
    relations={
        "left of": ("left of", "to the left of"),
        "right of": ("right of", "to the right of"),
        "above": ("above", "over"),
        "below": ("below", "under"),
    },
    places={
        "top left": ("in the top left", "in the upper left corner"),
        "top": ("at the top",),
        "top right": ("in the top right", "in the upper right corner"),
        "left": ("on the left", "on the left side"),
        "middle": ("in the middle", "in the centre"),
        "right": ("on the right", "on the right side"),
        "bottom left": ("in the bottom left", "in the lower left corner"),
        "bottom": ("at the bottom",),
        "bottom right": ("in the bottom right", "in the lower right corner"),
    },
    counts={"a single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "no": 0},
    nouns=("shape", "object", "thing"),
    one=("an", "a", "the"),
    at=(),
    pauses=("and", ",", ";", ".", ":"),
    fillers=("a picture of", "the picture shows", "there is", "there are", "is", "are", "here"),
)

CHINESE = Lexicon(
    shapes={
        "circle": ("圆形", "圆"),
        "square": ("正方形", "方块"),
        "triangle": ("三角形",),
        "cross": ("十字", "十字形"),
        "star": ("星形", "五角星"),
        "heart": ("心形", "爱心"),
        "ring": ("圆环", "环形"),
        "moon": ("月牙", "月亮"),
    },
    colours={
        "red": ("红色", "红"),
        "orange": ("橙色", "橘色"),
        "yellow": ("黄色", "黄"),
        "green": ("绿色", "绿"),
        "cyan": ("青色",),
        "blue": ("蓝色", "蓝"),
        "purple": ("紫色",),
        "pink": ("粉色", "粉红色"),
    },
    sizes={"small": ("小的", "小"), "large": ("大的", "大")},
    relations={
        "left of": ("左边", "左方"),
        "right of": ("右边", "右方"),
        "above": ("上方", "上面"),
        "below": ("下方", "下面"),
    },
    places={
        "top left": ("左上角",),
        "top": ("画面顶部", "最上部"),
        "top right": ("右上角",),
        "left": ("画面左侧", "左侧"),
        "middle": ("正中间", "画面中央"),
        "right": ("画面右侧", "右侧"),
        "bottom left": ("左下角",),
        "bottom": ("画面底部", "最下部"),
        "bottom right": ("右下角",),
    },
    counts={"只有一个": 1, "两个": 2, "三个": 3, "四个": 4, "没有": 0},
    nouns=("图形", "物体"),
    one=("一个",),
    at=("在", "位于"),
    pauses=("和", "，", "、", "。", "；", "：", ",", ".", ";", ":", "而"),
    fillers=("图中", "画面里", "这张图里", "一幅画", "画着", "有", "是", "的"),
)

LEXICONS = {"en": ENGLISH, "zh": CHINESE}


def language_of(text: str) -> str:
    """Say "zh" for a text with Chinese characters, else "en"."""
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"
