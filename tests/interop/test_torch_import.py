"""A released file becomes ours whole, or not at all."""

import numpy as np
import pytest
from random_models import TINY, random_released
from safetensors.numpy import save_file

from unilseg_jax.errors import UserError
from unilseg_jax.interop.torch_import import load_released, read_released


def write(path, tensors, **metadata):
    save_file(tensors, path, metadata or None)
    return path


def test_a_released_file_becomes_variables_and_carried_tensors(tmp_path):
    tensors = random_released()
    pretrained = load_released(write(tmp_path / "m.safetensors", tensors))
    assert pretrained.architecture == TINY
    assert pretrained.input_size == 480
    params = pretrained.variables["params"]
    block = "query_decoder.query_transformer.decoder.layers.1"
    query, key, value = np.split(tensors[f"{block}.self_attn.in_proj_weight"], 3)
    attention = params["language_path"]["layers_1"]["self_attn"]
    np.testing.assert_array_equal(attention["query"]["kernel"], query.T)
    np.testing.assert_array_equal(attention["key"]["kernel"], key.T)
    np.testing.assert_array_equal(attention["value"]["kernel"], value.T)
    np.testing.assert_array_equal(
        params["image_encoder"]["patch_embed_proj"]["kernel"][1, 2],
        tensors["backbone_visual.patch_embed.proj.weight"][:, :, 1, 2].T,
    )
    np.testing.assert_array_equal(
        pretrained.variables["batch_stats"]["vision_path"]["adapter_3"]["norm"]["var"],
        tensors["pixel_decoder.adapter_3.1.running_var"],
    )
    kept = {
        name
        for name in tensors
        if name.startswith(("backbone.visual.", "backbone.logit_scale")) or name.endswith("num_batches_tracked")
    }
    assert pretrained.carried.keys() == kept
    assert pretrained.carried["query_decoder.visual_proj.1.num_batches_tracked"].dtype == np.int64


def test_what_no_tensor_tells_comes_from_the_argument_or_the_file(tmp_path):
    path = write(tmp_path / "m.safetensors", random_released(), word_len="7", input_size="64")
    pretrained = load_released(path)
    assert (pretrained.architecture.word_len, pretrained.input_size) == (7, 64)
    pretrained = load_released(path, word_len=5, input_size=96)
    assert (pretrained.architecture.word_len, pretrained.input_size) == (5, 96)


def test_all_differences_are_told_at_once(tmp_path):
    tensors = random_released()
    del tensors["fusion_proj.weight"]
    del tensors["backbone.logit_scale"]
    tensors["pixel_decoder.adapter_5.0.weight"] = np.ones((2, 3), np.float32)
    tensors["backbone.ln_final.weight"] = np.ones(65, np.float32)
    tensors["query_decoder.visual_proj.1.bias"] = np.ones(16, np.int64)
    tensors["backbone_visual.layers.0.blocks.1.attn.relative_position_index"] = np.zeros((16, 16), np.int64)
    with pytest.raises(UserError) as caught:
        load_released(write(tmp_path / "m.safetensors", tensors))
    message = str(caught.value)
    assert "6 tensors differ" in message
    for line in (
        "missing: fusion_proj.weight, wanted float32 (64, 64)",
        "missing: backbone.logit_scale, wanted float32 ()",
        "surplus: pixel_decoder.adapter_5.0.weight, found float32 (2, 3)",
        "other shape or type: backbone.ln_final.weight, found float32 (65,), wanted float32 (64,)",
        "other shape or type: query_decoder.visual_proj.1.bias, found int64 (16,), wanted float32 (16,)",
        "other index: backbone_visual.layers.0.blocks.1.attn.relative_position_index",
    ):
        assert line in message


@pytest.mark.parametrize(
    "prefixes",
    [
        ("fusion", "all_fusion"),
        ("fusion",),
        ("all_fusion_module.",),
        ("pixel_decoder.cross_attn_",),
        ("query_decoder.",),
        ("query_decoder.query_transformer.",),
        ("fusion", "all_fusion", "pixel_decoder.cross_attn_", "query_decoder."),
    ],
    ids="+".join,
)
def test_a_file_without_a_whole_module_is_refused_and_all_that_lacks_listed(tmp_path, prefixes):
    tensors = random_released()
    lacking = [name for name in tensors if name.startswith(prefixes)]
    path = write(tmp_path / "m.safetensors", {name: tensors[name] for name in tensors if name not in lacking})
    with pytest.raises(UserError, match="is not a complete model in the released layout") as caught:
        load_released(path)
    message = str(caught.value)
    assert all(f"missing: {name}, wanted" in message for name in lacking)
    assert "surplus" not in message
    assert "sentence_proj" not in message


def test_all_differences_are_listed_however_many(tmp_path):
    tensors = random_released() | {f"extra.{n}": np.ones(1, np.float32) for n in range(100)}
    with pytest.raises(UserError, match="100 tensors differ") as caught:
        load_released(write(tmp_path / "m.safetensors", tensors))
    assert all(f"surplus: extra.{n}, found float32 (1,)" in str(caught.value) for n in range(100))


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("pixel_decoder.cross_attn_1.linear1.weight", "1 tensor differs"),
        ("backbone_visual.layers.2.blocks.99999999999.norm1.weight", "surplus"),
    ],
)
def test_damaged_names_and_empty_tensors_are_refused(tmp_path, extra, says):
    path = write(tmp_path / "m.safetensors", random_released() | {extra: np.ones((0,), np.float32)})
    with pytest.raises(UserError, match=says):
        load_released(path)


def test_sizes_that_do_not_fit_are_refused_with_the_files_name(tmp_path):
    tensors = random_released()
    tables = [name for name in tensors if name.endswith("relative_position_bias_table")]
    path = write(tmp_path / "m.safetensors", tensors | dict.fromkeys(tables, np.ones((49, 0), np.float32)))
    with pytest.raises(UserError, match=r"m\.safetensors.*do not fit together"):
        load_released(path)


@pytest.mark.parametrize(
    "name", ["fusion_proj.weight", "pixel_decoder.adapter_1.1.running_var", "backbone.visual.proj"]
)
def test_values_that_are_not_finite_are_refused_with_tensor_and_count(tmp_path, name):
    tensors = random_released()
    tensors[name].flat[:3] = [np.nan, np.inf, -np.inf]
    path = write(tmp_path / "m.safetensors", tensors)
    said = rf"m\.safetensors' are not all finite: 3 of {tensors[name].size:,} values of {name} are not; copy them again"
    with pytest.raises(UserError, match=said) as caught:
        load_released(path)
    assert "\n" not in str(caught.value)


def test_many_tensors_that_are_not_finite_are_counted(tmp_path):
    tensors = random_released()
    for name in ("fusion_proj.weight", "fusion_proj.bias", "backbone.ln_final.bias"):
        tensors[name][:] = np.nan
    with pytest.raises(UserError, match="are not, and 2 more tensors have such values; copy them again"):
        load_released(write(tmp_path / "m.safetensors", tensors))


def test_half_precision_is_accepted_and_said(tmp_path, caplog):
    tensors = random_released()
    name = "fusion_proj.weight"
    path = write(tmp_path / "m.safetensors", tensors | {name: tensors[name].astype(np.float16)})
    pretrained, notes = read_released(path)
    assert notes == ["1 tensors of float16 were turned into float32"]
    kernel = pretrained.variables["params"]["prefusion"]["word_proj_4"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors[name].astype(np.float16).astype(np.float32).T)
    load_released(path)
    assert "float16 were turned into float32" in caplog.text
