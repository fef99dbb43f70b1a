"""Token ids against ids written out by hand, and the rules for odd and long phrases."""

import json
import warnings

import numpy as np
import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.text import tokenizer
from unilseg_jax.text.tokenizer import PhraseCutWarning, encode, kept_text, tokenize

# "a photo of a cat" as every CLIP example shows it.
A_PHOTO_OF_A_CAT = [320, 1125, 539, 320, 2368]


def test_ids_are_clips_with_markers_and_zero_padding():
    tokens = tokenize(["a photo of a cat", "Cat"], 9)
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(
        tokens, [[49406, *A_PHOTO_OF_A_CAT, 49407, 0, 0], [49406, 2368, 49407, 0, 0, 0, 0, 0, 0]]
    )


@pytest.mark.parametrize(
    "phrase",
    ["A PHOTO  of\n a\tCat ", "a photo of a&nbsp;cat", "a photo of a&amp;nbsp;cat", "\u3000a photo of a cat"],
)
def test_case_white_space_and_entities_do_not_matter(phrase):
    assert list(encode(phrase)) == A_PHOTO_OF_A_CAT


def test_broken_unicode_is_mended():
    assert encode("cafÃ©") == encode("café")
    assert len(encode("\ud800")) == 1


def test_a_phrase_that_just_fits_is_not_cut():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = tokenize(["a photo of a cat"], 7)
    np.testing.assert_array_equal(tokens, [[49406, *A_PHOTO_OF_A_CAT, 49407]])
    assert kept_text("a photo of a cat", 7) is None


def test_a_long_phrase_is_cut_ends_in_the_end_marker_and_says_what_was_kept():
    with pytest.warns(PhraseCutWarning, match="5 tokens, at most 3 are read; kept: 'a photo of'"):
        tokens = tokenize(["a photo of a cat"], 5)
    np.testing.assert_array_equal(tokens, [[49406, 320, 1125, 539, 49407]])


def test_cutting_inside_a_character_still_shows_text():
    assert isinstance(kept_text("日本語日本語", 3), str)


@pytest.mark.parametrize("phrase", ["", "  \n", "&nbsp;", "\ufeff", "\x00"])
def test_an_empty_phrase_is_refused(phrase):
    with pytest.raises(UserError, match="is empty"):
        tokenize(["all sky", phrase], 17)


def test_markers_in_a_phrase_are_plain_text():
    assert 49407 not in encode("dog <|endoftext|> cat")


def test_no_phrases_give_no_rows():
    assert tokenize([], 17).shape == (0, 17)


def test_a_word_limit_without_room_for_a_word_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        tokenize(["dog"], 2)


@pytest.fixture
def vocabulary_from(monkeypatch):
    """Points the tokenizer at vocabulary files and forgets them afterwards."""

    def use(source):
        monkeypatch.setenv(tokenizer.VOCABULARY_VARIABLE, str(source))
        tokenizer._vocabulary.cache_clear()
        tokenizer.encode.cache_clear()

    yield use
    tokenizer._vocabulary.cache_clear()
    tokenizer.encode.cache_clear()


def test_vocabulary_files_can_stand_in_for_the_wheel(vocabulary_from, tmp_path):
    pytest.importorskip("transformers")
    letters = "adgo<|>endftx"
    pieces = [c + end for c in dict.fromkeys(letters) for end in ("", "</w>")]
    pieces += ["do", "dog</w>", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
    vocabulary_from(tmp_path)
    a, dog, end = pieces.index("a</w>"), pieces.index("dog</w>"), pieces.index("<|endoftext|>")
    np.testing.assert_array_equal(tokenize(["A dog"], 6), [[49406, a, dog, 49407, 0, 0]])
    assert end not in encode("dog <|endoftext|>")
    assert kept_text("a dog a dog", 4) == "a dog"


def test_a_missing_vocabulary_is_one_clear_line(vocabulary_from, tmp_path):
    pytest.importorskip("transformers")
    vocabulary_from(tmp_path / "absent")
    with pytest.raises(UserError, match=tokenizer.VOCABULARY_VARIABLE) as caught:
        tokenize(["dog"], 5)
    assert "\n" not in str(caught.value)
