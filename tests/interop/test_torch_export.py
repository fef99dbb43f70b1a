"""What was imported is exported to the last bit; what was trained here is filled up."""

import dataclasses

import numpy as np
import pytest
from parity_weights import MINI, MINI_TOWER
from random_models import TINY, assert_bitwise_equal, random_released, random_tensors
from safetensors.numpy import load_file, save_file

from unilseg_jax.errors import UserError
from unilseg_jax.interop.layout import ImageTower, model_entries, released_entries
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.interop.torch_export import export_released, write_released
from unilseg_jax.interop.torch_import import assemble, load_released
from unilseg_jax.models.architecture import named_architecture


def trained(sizes=TINY) -> Pretrained:
    entries = model_entries(sizes)
    return Pretrained(architecture=sizes, variables=assemble(entries, random_tensors(entries)))


def test_round_trip_of_a_random_model_is_bitwise(tmp_path):
    tensors = random_released()
    tensors["fusion_proj.bias"][:3] = [np.finfo(np.float32).max, -0.0, np.float32(1e-45)]
    save_file(tensors, tmp_path / "in.safetensors")
    exported, notes = export_released(load_released(tmp_path / "in.safetensors"))
    assert_bitwise_equal(exported, tensors)
    assert notes == []
    write_released(tmp_path / "out.safetensors", exported)
    assert_bitwise_equal(load_file(tmp_path / "out.safetensors"), tensors)


def test_round_trip_of_the_layout_of_the_fixtures_is_bitwise(tmp_path):
    tensors = random_tensors(released_entries(MINI, MINI_TOWER))
    save_file(tensors, tmp_path / "in.safetensors", {"word_len": str(MINI.word_len)})
    exported, notes = export_released(load_released(tmp_path / "in.safetensors"))
    assert notes == []
    assert_bitwise_equal(exported, tensors)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("sizes", "tower"),
    [(MINI, MINI_TOWER), pytest.param(named_architecture("base"), ImageTower(), marks=pytest.mark.slow)],
    ids=["mini", "base"],
)
def test_round_trip_of_a_pytorch_file_is_bitwise(tmp_path, sizes, tower):
    torch = pytest.importorskip("torch")
    tensors = random_tensors(released_entries(sizes, tower))
    state = {f"module.{name}": torch.from_numpy(value) for name, value in tensors.items()}
    torch.save({"state_dict": state}, tmp_path / "in.pth")
    exported, notes = export_released(load_released(tmp_path / "in.pth"))
    assert notes == []
    assert_bitwise_equal(exported, tensors)
    write_released(tmp_path / "out.pth", exported)
    again = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert_bitwise_equal(
        {name: value.numpy() for name, value in again.items()},
        {f"module.{name}": value for name, value in tensors.items()},
    )


def test_a_trained_model_gets_an_empty_image_tower_and_a_note():
    pretrained = trained()
    tensors, notes = export_released(pretrained)
    wanted = {entry.name: (entry.shape, entry.dtype) for entry in released_entries(TINY)}
    assert {name: (value.shape, str(value.dtype)) for name, value in tensors.items()} == wanted
    assert tensors["backbone.visual.conv1.weight"].shape == (768, 3, 16, 16)
    assert not tensors["backbone.visual.proj"].any()
    assert tensors["pixel_decoder.layer_1.1.num_batches_tracked"] == 0
    assert "filled with zeros" in notes[0]


def test_settings_travel_with_the_file(tmp_path):
    sizes = dataclasses.replace(TINY, word_len=9)
    tensors, _ = export_released(dataclasses.replace(trained(sizes), input_size=96))
    write_released(tmp_path / "m.safetensors", tensors, {"word_len": 9, "input_size": 96})
    pretrained = load_released(tmp_path / "m.safetensors")
    assert (pretrained.architecture, pretrained.input_size) == (sizes, 96)


@pytest.mark.parametrize("switch", ["pre_fusion", "language_path", "vision_path"])
def test_a_reduced_model_is_refused(switch):
    with pytest.raises(UserError, match=f"built without {switch}"):
        export_released(trained(dataclasses.replace(TINY, **{switch: False})))


def test_variables_of_another_architecture_are_refused():
    pretrained = dataclasses.replace(trained(), architecture=dataclasses.replace(TINY, query_width=24))
    with pytest.raises(UserError, match="other shape: params/vision_path/mask_features/kernel"):
        export_released(pretrained)
    del pretrained.variables["params"]["prefusion"]["word_proj_1"]
    with pytest.raises(UserError, match="missing: params/prefusion/word_proj_1/kernel"):
        export_released(dataclasses.replace(pretrained, architecture=TINY))


def test_an_incomplete_image_tower_is_refused():
    pretrained = dataclasses.replace(trained(), carried={"backbone.logit_scale": np.zeros((), np.float32)})
    with pytest.raises(UserError, match=r"missing: backbone\.visual\.proj"):
        export_released(pretrained)


def test_output_is_checked_and_nothing_is_left_behind(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.pth, \.pt or \.safetensors"):
        write_released(tmp_path / "m.ckpt", {})
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_released(tmp_path / "folder.safetensors", {})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file' is a file, a folder is wanted there"):
        write_released(tmp_path / "file" / "m.safetensors", {"a": np.ones(1)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.safetensors"]
