"""Phrases to token ids of CLIP's byte-pair vocabulary.

Differs: a marker written out in a phrase is plain text here; it cannot end the phrase early.
"""

import functools
import html
import os
import warnings
from collections.abc import Sequence

import ftfy
import numpy as np
from jaxtyping import Int32

from unilseg_jax.errors import UserError

START = 49406
END = 49407
PADDING = 0
VOCABULARY_VARIABLE = "UNILSEG_CLIP_TOKENIZER"
"""Environment variable: a folder (or a name on the hub) with CLIP's `vocab.json` and `merges.txt`."""
HUB_VOCABULARY = "openai/clip-vit-base-patch16"

_SHOWN = 60


class PhraseCutWarning(UserWarning):
    """A phrase was longer than the word limit; the model saw only its beginning."""


class _WheelVocabulary:
    """The vocabulary inside the wheel of instant-clip-tokenizer."""

    def __init__(self):
        from instant_clip_tokenizer import Tokenizer

        self._tokenizer = Tokenizer()

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids))


class _TransformersVocabulary:
    """CLIP's vocabulary files read by transformers, for Pythons without the wheel."""

    def __init__(self, source: str):
        try:
            from transformers import CLIPTokenizer
        except ImportError:
            raise UserError(
                "no tokenizer: instant-clip-tokenizer has no wheel for this Python; "
                "install the extra 'hf' (pip install 'unilseg_jax[hf]')"
            ) from None
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(source)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"no CLIP vocabulary at {source!r} ({type(error).__name__}); set {VOCABULARY_VARIABLE} "
                "to a folder with vocab.json and merges.txt"
            ) from None

    def encode(self, text: str) -> list[int]:
        # Its own padding is the end marker, ours is 0: only the plain ids are taken from it.
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids))


@functools.lru_cache(maxsize=1)
def _vocabulary() -> _WheelVocabulary | _TransformersVocabulary:
    """Returns the vocabulary, loaded once: the named one, the wheel's, or the hub's, in this order."""
    if os.environ.get(VOCABULARY_VARIABLE):
        return _TransformersVocabulary(os.environ[VOCABULARY_VARIABLE])
    try:
        return _WheelVocabulary()
    except ImportError:
        return _TransformersVocabulary(HUB_VOCABULARY)


def clean(phrase: str) -> str:
    """Mends broken Unicode, resolves HTML entities (also doubly escaped ones) and strips white space."""
    return html.unescape(html.unescape(ftfy.fix_text(phrase))).strip()


@functools.lru_cache(maxsize=1 << 16)
def encode(phrase: str) -> tuple[int, ...]:
    """Returns the ids of a whole phrase, without markers and padding; case is ignored.

    Raises:
        UserError: nothing is left of the phrase after cleaning.
    """
    ids = tuple(_vocabulary().encode(clean(phrase)))
    if not ids:
        raise UserError(f"the phrase {phrase!r} is empty; say in words what to segment")
    return ids


def kept_text(phrase: str, word_len: int) -> str | None:
    """Returns what the model sees of a phrase that is too long, or None if the whole phrase fits.

    Args:
        phrase: raw text.
        word_len: tokens of a phrase including the start and end markers; at least 3.

    Raises:
        UserError: the phrase is empty.
    """
    ids = encode(phrase)
    if len(ids) <= word_len - 2:
        return None
    return _vocabulary().decode(ids[: word_len - 2]).strip()


def tokenize(phrases: Sequence[str], word_len: int, *, warn: bool = True) -> Int32[np.ndarray, "n l"]:
    """Turns phrases into rows of ids: start marker, words, end marker, padding 0.

    A phrase that is too long is cut, keeps its end marker and raises a `PhraseCutWarning`.

    Args:
        phrases: raw texts.
        word_len: tokens of a phrase including the start and end markers; at least 3.
        warn: whether a cut phrase is worth a warning; a data set has thousands.

    Raises:
        UserError: a phrase is empty.
        ValueError: `word_len` is less than 3.
    """
    if word_len < 3:
        raise ValueError(f"word_len = {word_len} leaves no room for a word; it must be at least 3")
    tokens = np.full((len(phrases), word_len), PADDING, np.int32)
    for row, phrase in zip(tokens, phrases, strict=True):
        kept = kept_text(phrase, word_len) if warn else None
        if kept is not None:
            shown = phrase if len(phrase) <= _SHOWN else phrase[: _SHOWN - 3] + "..."
            warnings.warn(
                f"the phrase {shown!r} has {len(encode(phrase))} tokens, at most {word_len - 2} are read; "
                f"kept: {kept!r}",
                PhraseCutWarning,
                stacklevel=2,
            )
        ids = (START, *encode(phrase)[: word_len - 2], END)
        row[: len(ids)] = ids
    return tokens
