"""Phrases for data sets that come with classes instead of language (paper Table 1), and phrases of mirrored pictures.

Class names are kept as tables, `names/TABLE.tsv`, with the columns `label` (the value in the label map), `native`
(the name as its authors write it) and `phrase` (what people say). Names that only come with a user's
files go through `clean`.

Differs: the paper does not say how it worded class names; the tables are this project's choice.
"""

import csv
import functools
import re
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from unilseg_jax.errors import UserError

SALIENT = "the most salient object"
"""The phrase of salient object detection (paper Table 1)."""

# The last two pairs are how the referring expressions of COCO pictures abbreviate the sides.
_SIDES = (("left", "right"), ("lft", "rgt"), ("lt", "rt"))
_OTHER_SIDE = {word: other for pair in (*_SIDES, ("l", "r")) for word, other in (pair, pair[::-1])}
# What a side is written together with. Any word would not do: "leftover", "lefty", "rights", "righteous".
_BEFORE = "top|bottom|upper|lower|far|mid|middle|center|front|back"
_AFTER = (
    "most|est|hand|handed|side|ward|wards|arm|foot|leg|eye|ear|shoulder|knee|corner|end|half|edge|top|bottom|front|middle|"
    "center|above|below|of|man|guy|woman|lady|girl|boy|kid|person|one"
)
# A side alone ("left-hand" holds one, too), or as part of a word such as "leftmost", "topleft" or "rightarm"; "L side",
# but not "they r side by side".
_SIDE_WORD = re.compile(
    rf"\b(?P<before>(?:{_BEFORE})?)(?P<side>left|right|lft|rgt|lt|rt)(?P<after>(?:{_AFTER})?)\b"
    r"|\b(?P<letter>[lr])(?=[ -]side\b(?! by side\b))",
    re.IGNORECASE,
)
# "Right next to" and the like mean closeness, "on the right next to" means the side.
_CLOSENESS = re.compile(
    r"\s+(?:next to|beside|behind|above|below|under|underneath|beneath|in front of|in the middle)\b", re.IGNORECASE
)
# "Right now", and "all right" if nothing follows that could be on the right; with "left" too, so that a second flip
# gives the text back. "Right away" is mostly a direction.
_NO_SIDE_AFTER = re.compile(r"\s+now\b", re.IGNORECASE)
_ALL, _END = re.compile(r"\ball\s+$", re.IGNORECASE), re.compile(r"\s*(?:[^\w\s'-]|$)")
_BEFORE_A_SIDE = re.compile(
    r"\b(?:the|to|on|at|far|top|bottom|upper|lower|middle|center|front|back|his|her|its|your)\s+$", re.IGNORECASE
)


class ClassName(NamedTuple):
    """A row of a table of names.

    Attributes:
        label: the value in the label map or the category id.
        native: the name as its authors write it.
        phrase: what people say, without "all".
    """

    label: int
    native: str
    phrase: str


def all_of(name: str) -> str:
    """Returns the phrase that means everything of a class (paper Table 1).

    Args:
        name: of the class, as people say it.

    Raises:
        UserError: the name has neither letter nor digit.
    """
    if not any(letter.isalnum() for letter in name):
        raise UserError(f"the class name {name!r} says nothing, a name with letters is wanted")
    return f"all {name}"


def clean(name: str) -> str:
    """Returns a class name as people say it: lower case, words apart, the first of several synonyms.

    Args:
        name: as its authors write it.

    Returns:
        The name; empty if nothing is left of it.
    """
    synonyms = (" ".join(re.sub(r"[_\-\s]+", " ", part).lower().split()) for part in re.split(r"[,;/()]", name))
    return next((synonym for synonym in synonyms if synonym), "")


def includes(name: str, other: str) -> bool:
    """Whether things of a class may also be called by another class's name, going by the words alone.

    English puts the kind last: "wall" includes "brick wall", and "chair" includes "armchair". That a house is a
    building cannot be told this way.

    Args:
        name: of the wider class.
        other: name of the class that may lie in it.
    """
    return bool(name) and other.endswith(name)


def tables() -> tuple[str, ...]:
    """Returns the names of the tables of class names, sorted."""
    files = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".tsv") for name in files if name.endswith(".tsv")))


@functools.cache
def class_names(table: str) -> tuple[ClassName, ...]:
    """Returns a table of names in the order of its labels.

    Args:
        table: one of `tables()`.

    Raises:
        UserError: there is no such table.
    """
    if table not in tables():
        raise UserError(f"no table of class names {table!r}; there are: {', '.join(tables())}")
    text = _folder().joinpath(f"{table}.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    names = (ClassName(int(row["label"]), row["native"], row["phrase"]) for row in rows)
    return tuple(sorted(names, key=lambda name: name.label))


def flip_sides(text: str) -> str:
    """Returns a phrase as it is true of the mirrored picture: left and right change places.

    "Right" that means closeness ("right next to the dog") stays, and so do "right now" and a final "all right". A
    "left" that means what remains ("the only piece left") cannot be told from a side and is exchanged.

    Args:
        text: any phrase; only whole words count ("left", "leftmost", "rightarm", "L side"), so "bright" is no side.
            Capitals are kept.
    """

    def other(match: re.Match) -> str:
        side = match["side"] or match["letter"]
        if match[0].lower() in _SIDES[0] and _means_no_side(text, match):
            return match[0]
        swapped = _OTHER_SIDE[side.lower()]
        # A side of one capital and small letters is capitalised, one of capitals only stays so.
        swapped = swapped.upper() if side.isupper() else swapped.capitalize() if side[0].isupper() else swapped
        return f"{match['before'] or ''}{swapped}{match['after'] or ''}"

    return _SIDE_WORD.sub(other, text)


def _means_no_side(text: str, word: re.Match) -> bool:
    """Whether a "left" or "right" that stands alone in a text means something else."""
    start, end = word.span()
    if _ALL.search(text, 0, start):
        return bool(_END.match(text, end))
    if _BEFORE_A_SIDE.search(text, 0, start):
        return False
    return bool(_NO_SIDE_AFTER.match(text, end) or (word[0].lower() == "right" and _CLOSENESS.match(text, end)))


def _folder() -> Traversable:
    return resources.files("unilseg_jax.text").joinpath("names")
