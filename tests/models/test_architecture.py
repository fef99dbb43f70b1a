"""Sizes of a model, and which of them do not fit together."""

import dataclasses

import pytest

from unilseg_jax.models.architecture import Architecture, named_architecture


def test_the_default_is_the_released_model():
    sizes = Architecture()
    assert sizes.level_widths == (128, 256, 512, 1024)
    assert sizes == named_architecture("base")
    assert (sizes.depths, sizes.num_heads, sizes.window_size) == ((2, 2, 18, 2), (4, 8, 16, 32), 7)
    assert (sizes.text_width, sizes.text_layers, sizes.sentence_width) == (512, 12, 512)
    assert (sizes.vocab_size, sizes.context_length, sizes.word_len) == (49408, 77, 17)
    assert (sizes.query_width, sizes.query_layers, sizes.ffn_width) == (256, 6, 2048)
    assert sizes.pre_fusion
    assert sizes.language_path
    assert sizes.vision_path
    assert (sizes.dropout, sizes.stochastic_depth) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("name", "widths", "depths", "heads"),
    [
        ("tiny", (96, 192, 384, 768), (2, 2, 6, 2), (3, 6, 12, 24)),
        ("small", (96, 192, 384, 768), (2, 2, 18, 2), (3, 6, 12, 24)),
        ("base", (128, 256, 512, 1024), (2, 2, 18, 2), (4, 8, 16, 32)),
        ("large", (192, 384, 768, 1536), (2, 2, 18, 2), (6, 12, 24, 48)),
    ],
)
def test_swins_go_by_their_published_names(name, widths, depths, heads):
    sizes = named_architecture(name, word_len=20)
    assert (sizes.level_widths, sizes.depths, sizes.num_heads) == (widths, depths, heads)
    assert sizes.word_len == 20


def test_an_unknown_swin_is_refused():
    with pytest.raises(ValueError, match="no Swin of size 'huge'; wanted one of tiny, small, base, large"):
        named_architecture("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2, 2, 2)}, "need 4 numbers each"),
        ({"num_heads": (4, 8, 16, 32, 64)}, "need 4 numbers each"),
        ({"num_heads": (3, 8, 16, 32)}, "128 channels cannot be split into 3"),
        ({"num_heads": (4, 8, 16, 33)}, "1024 channels cannot be split into 33"),
        ({"embed_dim": 12, "num_heads": (1, 1, 1, 1)}, "12 channels cannot be split into 1 and into 8"),
        ({"text_width": 96}, "text_width = 96 must be a multiple of 64"),
        ({"query_width": 100}, "query_width = 100 must be a multiple of 8"),
        ({"word_len": 2}, r"word_len = 2 must be 3 to 77"),
        ({"word_len": 78}, r"word_len = 78 must be 3 to 77"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**changes)


@pytest.mark.parametrize("word_len", [3, 77])
def test_the_extreme_lengths_of_a_phrase_are_allowed(word_len):
    assert Architecture(word_len=word_len).word_len == word_len


def test_equal_sizes_hash_alike():
    # jax.jit keeps compiled functions by them.
    assert hash(Architecture(depths=(2, 2, 18, 2))) == hash(Architecture())
    assert Architecture(word_len=20) != Architecture()


def test_sizes_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Architecture().embed_dim = 96
