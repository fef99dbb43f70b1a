"""What an export says about the authors' code: which sizes differ, which keys to set, what it cannot build."""

import dataclasses

import pytest

from unilseg_jax.interop.released_code import notes_on_released_code
from unilseg_jax.models.architecture import Architecture, named_architecture

SMALL = Architecture(
    embed_dim=32,
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 4, 8),
    window_size=4,
    text_width=64,
    text_layers=2,
    ffn_width=128,
)


def test_the_released_sizes_need_no_word():
    assert notes_on_released_code(Architecture(dropout=0.0, stochastic_depth=0.0), 480) == []


def test_other_phrases_and_pictures_are_keys():
    differs, keys = notes_on_released_code(Architecture(word_len=22), 320)
    assert differs.endswith("(in brackets): word_len 22 (17), input_size 320 (480)")
    assert keys.endswith("config/general_inference.yaml: input_size: 320, word_len: 22")


def test_other_widths_are_every_key_that_means_them():
    _, keys = notes_on_released_code(Architecture(query_width=128, query_layers=3, sentence_width=256), 480)
    for key in ("pixel_decoder_mask: 128", "d_model: 128", "num_dec: 3", "text_in: 256"):
        assert key in keys
    assert keys.endswith("clip_pretrain: a CLIP with sentence_width 256")


def test_a_large_swin_is_built_with_windows_of_12_alone():
    differs, keys = notes_on_released_code(named_architecture("large", window_size=12), 480)
    assert "embed_dim 192 (128), num_heads 6-12-24-48 (4-8-16-32), window_size 12 (7)" in differs
    assert "fusion_dim: 1536, pixel_decoder_in: [192, 384, 768, 1536], visual_in: 1536" in keys
    assert "whose name has 'large' in it" in keys
    assert "heads, windows of 7" in notes_on_released_code(named_architecture("large"), 480)[1]


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_a_small_swin_cannot_be_built(size):
    assert "cannot build this model before it is changed" in notes_on_released_code(named_architecture(size), 480)[1]


def test_all_that_cannot_be_built_is_listed():
    _, lacks, keys = notes_on_released_code(SMALL, 64)
    assert "no Swin of 32 channels, 1-1-2-1 blocks, 1-2-4-8 heads, windows of 4" in lacks
    assert "text_width 512 is written in its model/segmenter.py" in lacks
    assert "ffn_width 2048 is written in its model/layers.py" in lacks
    assert "pixel_decoder_conv: 64" in keys


def test_every_size_is_told():
    for field in dataclasses.fields(Architecture):
        if type(field.default) is int:
            changed = dataclasses.replace(Architecture(), **{field.name: 64})
            assert f"{field.name} 64 ({field.default})" in notes_on_released_code(changed, 480)[0]
