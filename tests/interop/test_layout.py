"""The table of names covers the released layout and our parameters, each once."""

import dataclasses
import hashlib
import json
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from parity_weights import MINI, MINI_TOWER
from random_models import TINY

from unilseg_jax.interop.differences import our_shapes
from unilseg_jax.interop.infer import infer_architecture, infer_image_tower
from unilseg_jax.interop.layout import ImageTower, model_entries, released_entries
from unilseg_jax.models.architecture import named_architecture
from unilseg_jax.models.unilseg import UniLSeg

TABLE_8 = {
    "baseline": (False, False, False),
    "+PF": (True, False, False),
    "+LP": (True, True, False),
    "+VP": (True, True, True),
}

RELEASED = {
    "mini": (MINI, MINI_TOWER),
    "base": (named_architecture("base"), ImageTower()),
    "large": (named_architecture("large"), ImageTower()),
}
# `digest` of the specified lists of tensors (spec/layout_SIZE.json), which lie beside the project.
DIGESTS = {
    "mini": (401, "395990e53ef33546a9367d3d59e1019f01d6b1279006e1e84f17a82ca850dd97"),
    "base": (931, "bd72bead5b793203797f13095aba347fb6f74ff8993c827ce4e304668e704767"),
    "large": (931, "e3bba43e916ac6fab484a47949263ef28433bca2949aaffc93e38d3bb660a2cc"),
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


def digest(lines):
    """Returns how many tensors there are, and the sha256 of their sorted lines."""
    return len(lines), hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@pytest.mark.parametrize("size", RELEASED)
def test_the_table_has_the_digest_of_the_released_layout(size):
    entries = released_entries(*RELEASED[size])
    assert digest([f"{entry.name} {list(entry.shape)} {entry.dtype}" for entry in entries]) == DIGESTS[size]


@pytest.mark.parametrize("size", RELEASED)
def test_released_layouts_are_the_table_name_by_name(shared_dir, size):
    layout = json.loads((shared_dir / "spec" / f"layout_{size}.json").read_text())["tensors"]
    shapes = {name: tuple(shape) for name, (shape, _) in layout.items()}
    sizes, tower = RELEASED[size]
    assert infer_architecture(shapes, sizes.word_len) == sizes
    assert infer_image_tower(shapes) == tower
    entries = released_entries(sizes, tower)
    found = {entry.name: [list(entry.shape), entry.dtype] for entry in entries}
    assert found == layout
    assert len(found) == len(entries)
    assert digest([f"{name} {shape} {dtype}" for name, (shape, dtype) in layout.items()]) == DIGESTS[size]
