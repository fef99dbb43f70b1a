"""A user's phrase must say something, as one of a data set must."""

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.phrases import check_phrase


@pytest.mark.parametrize("phrase", ["all sky", "2", "日本", "caf&eacute;", "the dog\u200b!"])
def test_a_phrase_with_a_word_passes(phrase):
    check_phrase(phrase)


@pytest.mark.parametrize("phrase", ["", "  \n", "&nbsp;"])
def test_an_empty_phrase_is_refused(phrase):
    with pytest.raises(UserError, match="is empty"):
        check_phrase(phrase)


@pytest.mark.parametrize("phrase", ["\u200b\u200b", "...", "&#8203;", "\U0001f415", "a dog \ud83d", None, 7])
def test_a_phrase_without_words_is_refused_in_one_line(phrase):
    with pytest.raises(UserError, match="has no words") as caught:
        check_phrase(phrase)
    assert "\n" not in str(caught.value)
