"""Sizes are read off shapes."""

import dataclasses

import pytest
from random_models import TINY, TINY_TOWER

from unilseg_jax.errors import UserError
from unilseg_jax.interop.infer import infer_architecture, infer_image_tower
from unilseg_jax.interop.layout import released_entries
from unilseg_jax.models.architecture import SWIN_SIZES, Architecture, named_architecture


def shapes_of(sizes: Architecture) -> dict[str, tuple[int, ...]]:
    return {entry.name: entry.shape for entry in released_entries(sizes, TINY_TOWER)}


@pytest.mark.parametrize("swin", SWIN_SIZES)
def test_published_sizes_are_recognised(swin):
    sizes = named_architecture(swin)
    assert infer_architecture(shapes_of(sizes)) == sizes


@pytest.mark.parametrize("module", ["fusion", "all_fusion", "pixel_decoder.cross_attn_", "query_decoder."])
def test_a_module_that_lacks_is_not_taken_for_a_switch(module):
    shapes = {name: shape for name, shape in shapes_of(TINY).items() if not name.startswith(module)}
    found = infer_architecture(shapes)
    assert (found.pre_fusion, found.language_path, found.vision_path) == (True, True, True)


def test_sizes_of_a_tiny_model_and_its_image_tower_are_recognised():
    assert infer_architecture(shapes_of(TINY)) == TINY
    assert infer_image_tower(shapes_of(TINY)) == TINY_TOWER


def test_word_len_is_at_most_the_position_tables_rows():
    shapes = shapes_of(dataclasses.replace(TINY, context_length=9, word_len=9))
    assert infer_architecture(shapes).word_len == 9
    assert infer_architecture(shapes, word_len=5).word_len == 5
    with pytest.raises(UserError, match="word_len = 12 must be 3 to 9"):
        infer_architecture(shapes, word_len=12)


def test_one_bad_tensor_does_not_hide_behind_the_others():
    shapes = shapes_of(TINY) | {
        "backbone_visual.patch_embed.norm.weight": (16,),
        "backbone.ln_final.bias": (3,),
    }
    assert infer_architecture(shapes) == TINY


def test_tensors_of_another_model_are_refused():
    with pytest.raises(UserError, match=r"not those of a UniLSeg model.*found 1 such as conv1\.weight"):
        infer_architecture({"conv1.weight": (64, 3, 7, 7)})
