"""The table of names covers the released layout and our parameters, each once."""

import dataclasses
import json
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from random_models import TINY

from unilseg_jax.interop.differences import our_shapes
from unilseg_jax.interop.infer import infer_architecture, infer_image_tower
from unilseg_jax.interop.layout import model_entries, released_entries
from unilseg_jax.models.unilseg import UniLSeg

TABLE_8 = {
    "baseline": (False, False, False),
    "+PF": (True, False, False),
    "+LP": (True, True, False),
    "+VP": (True, True, True),
}


@pytest.mark.parametrize("switches", TABLE_8.values(), ids=TABLE_8.keys())
def test_every_parameter_is_in_the_table_once_with_its_shape(switches):
    names = ("pre_fusion", "language_path", "vision_path")
    sizes = dataclasses.replace(TINY, **dict(zip(names, switches, strict=True)))
    inputs = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 1, sizes.word_len), int)
    variables = jax.eval_shape(UniLSeg(sizes).init, jax.random.key(0), *inputs)
    wanted = {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}
    entries = model_entries(sizes)
    assert set(Counter(path for entry in entries for path in entry.paths).values()) == {1}
    assert {path: shape for entry in entries for path, shape in our_shapes(entry).items()} == wanted
    assert set(Counter(entry.name for entry in entries).values()) == {1}


@pytest.mark.parametrize("size", ["mini", "base", "large"])
def test_released_layouts_are_the_table(shared_dir, size):
    layout = json.loads((shared_dir / "spec" / f"layout_{size}.json").read_text())["tensors"]
    shapes = {name: tuple(shape) for name, (shape, _) in layout.items()}
    entries = released_entries(infer_architecture(shapes), infer_image_tower(shapes))
    found = {entry.name: [list(entry.shape), entry.dtype] for entry in entries}
    assert found == layout
    assert len(found) == len(entries)
