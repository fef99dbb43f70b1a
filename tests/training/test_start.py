"""Where a run's first weights come from."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from random_models import TINY, random_released

from unilseg_jax.errors import UserError
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.interop.torch_export import write_released
from unilseg_jax.interop.torch_import import load_released
from unilseg_jax.training.model_directory import save_pretrained
from unilseg_jax.training.start import check_given, fill, first_weights, weights_of_run


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A file of the released layout with random weights."""
    path = tmp_path_factory.mktemp("released") / "weights.safetensors"
    write_released(path, random_released())
    return str(path)


@pytest.fixture(scope="module")
def pretrained(released) -> Pretrained:
    return load_released(released)


def fresh(pretrained):
    return jax.tree.map(np.zeros_like, pretrained.variables)


def test_from_scratch_the_fresh_variables_stay(pretrained):
    variables = fresh(pretrained)
    found, carried, notes = first_weights(variables, pretrained.architecture)
    assert carried == {}
    assert notes == ["all weights from scratch: config.init names none"]
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("form", ["file", "directory"])
def test_everything_comes_from_a_whole_model(form, released, pretrained, tmp_path):
    path = released
    if form == "directory":
        path = str(tmp_path / "model")
        save_pretrained(path, pretrained)
    found, carried, notes = first_weights(fresh(pretrained), pretrained.architecture, model=path)
    jax.tree.map(np.testing.assert_array_equal, found, pretrained.variables)
    assert carried.keys() == pretrained.carried.keys()
    assert notes == [f"all weights from {path}"]


def test_a_model_of_another_architecture_is_refused_by_one_line(released, pretrained):
    other = fresh(pretrained)
    other["params"].pop("prefusion")
    with pytest.raises(
        UserError, match=r"of another architecture .*params/prefusion/.*: found \(.*, wanted none"
    ) as error:
        first_weights(other, dataclasses.replace(TINY, pre_fusion=False), model=released)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["model", "swin", "clip"])
def test_weights_that_are_not_there_are_refused_at_once(key, tmp_path):
    with pytest.raises(UserError, match=rf"config\.init\.{key}: no such file or folder: .*absent\.pth"):
        check_given(**{key: str(tmp_path / "absent.pth")})


def test_weights_that_are_there_pass(tmp_path):
    check_given()
    check_given(model=str(tmp_path))


def test_given_weights_are_read_before_there_are_fresh_ones(released, pretrained):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), pretrained.variables)
    found, _, _ = first_weights(shapes, pretrained.architecture, model=released)
    whole = fill(found, lambda: pytest.fail("fresh ones were made for nothing"))
    jax.tree.map(np.testing.assert_array_equal, whole, pretrained.variables)
    found["params"]["vision_path"] = shapes["params"]["vision_path"]
    mixed = fill(found, lambda: fresh(pretrained))["params"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(mixed.pop("vision_path")))
    jax.tree.map(np.testing.assert_array_equal, mixed, {name: pretrained.variables["params"][name] for name in mixed})
    nothing, _, _ = first_weights(shapes, pretrained.architecture)
    assert not any(leaf.any() for leaf in jax.tree.leaves(fill(nothing, lambda: fresh(pretrained))))


def test_a_new_run_checks_its_weights_and_one_that_goes_on_needs_none(tmp_path, capsys):
    init = {"model": str(tmp_path / "absent.pth"), "swin": "", "clip": ""}
    with pytest.raises(UserError, match=r"config\.init\.model: no such file"):
        weights_of_run(tmp_path, init)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    assert weights_of_run(tmp_path, init) == (init, True)
    started = {"model": "a.pth", "swin": "", "clip": ""}
    (tmp_path / "config.json").write_text(json.dumps({"init": started}))
    assert weights_of_run(tmp_path, started) == (started, True)
    assert capsys.readouterr().out == ""
    assert weights_of_run(tmp_path, init) == (started, True)
    assert capsys.readouterr().out.count("\n") == 1
