"""Phrases for data sets that come with classes instead of language (paper Table 1).

Class names are kept as tables, `names/TABLE.tsv`, with the columns `label` (the value in the label map), `native`
(the name as its authors write it) and `phrase` (what people say). Names that only come with a user's
files go through `clean`.

Differs: the paper does not say how it worded class names; the tables are this project's choice.
"""

import csv
import functools
import re
from importlib import resources
from typing import NamedTuple

SALIENT = "the most salient object"
"""The phrase of salient object detection (paper Table 1)."""


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
    """Returns the phrase that means everything of a class (paper Table 1)."""
    return f"all {name}"


def clean(name: str) -> str:
    """Returns a class name as people say it: lower case, words apart, the first of several synonyms."""
    first = re.split(r"[,;/(]", name)[0]
    return " ".join(re.sub(r"[_\-]+", " ", first).lower().split())


@functools.cache
def class_names(table: str) -> tuple[ClassName, ...]:
    """Returns a table of names in the order of its labels.

    Args:
        table: name of a file in `names/`, without its ending.
    """
    text = resources.files("unilseg_jax.text").joinpath("names", f"{table}.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(ClassName(int(row["label"]), row["native"], row["phrase"]) for row in rows)
