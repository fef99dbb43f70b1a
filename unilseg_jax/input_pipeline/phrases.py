"""Refuses a user's phrase that no record could hold, by the rule of the records (`triplet.has_words`)."""

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.triplet import has_words
from unilseg_jax.text.tokenizer import clean, encode


def check_phrase(phrase: object) -> None:
    """Refuses what says nothing, also once its HTML entities are resolved.

    Args:
        phrase: raw text.

    Raises:
        UserError: the phrase is empty, has neither letter nor digit, holds half a surrogate pair, or is no text.
    """
    if isinstance(phrase, str):
        encode(phrase)  # says it of an empty one
        if has_words(phrase) and has_words(clean(phrase)):
            return
    raise UserError(
        f"the phrase {phrase!r} has no words; letters or digits, and no half of a surrogate pair, are wanted"
    )
