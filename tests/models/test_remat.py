"""What is computed again in the backward pass changes neither outputs, nor gradients, nor statistics."""

import dataclasses
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from tiny_model import TINY, random_array, random_tokens, random_variables

from unilseg_jax.models.architecture import REMATS
from unilseg_jax.models.clip_text import ClipText
from unilseg_jax.models.language_path import LanguagePath
from unilseg_jax.models.swin import Swin
from unilseg_jax.models.unilseg import UniLSeg

SIZES = dataclasses.replace(TINY, depths=(1, 1, 1, 1), text_layers=1, query_layers=1, dropout=0.2, stochastic_depth=0.5)
TOKENS = random_tokens(2, 1)
IMAGES = random_array((2, 32, 32, 3))
TRAIN = {"train": True}
BOXES = {
    "image encoder": (Swin, (IMAGES,), TRAIN),
    "text encoder": (ClipText, (TOKENS[:, 0],), {}),
    "language path": (LanguagePath, (random_array((2, 1, 4, 4, 64)), random_array((2, 1, TINY.sentence_width))), TRAIN),
}


def objective(module, variables, arrays, options):
    """Returns a function of the parameters: a number and the new statistics of a forward pass in training."""

    def value(params):
        noise = {"dropout": jax.random.key(1)}
        given = {**variables, "params": params}
        output, updated = module.apply(given, *arrays, **options, rngs=noise, mutable=["batch_stats"])
        leaves = [leaf for leaf in jax.tree.leaves(output) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(jnp.square(leaf).mean() for leaf in leaves), updated

    return value


def same_numbers(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def same_arrays(found, wanted):
    """As `same_numbers`, measured by the greatest number of each array.

    Through the whole model a gradient's small numbers are what is left of large ones that cancel: there, compiling the
    same program with other options changes them by more than 1e-5 of themselves.
    """
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 + 1e-5 * np.abs(wanted).max(initial=0))


def assert_same(make, arrays, options, remats, same=same_numbers):
    """Compares value, statistics and gradients with those of a pass that keeps everything."""
    variables = random_variables(make("none"), *arrays, **options)
    wanted, *others = (
        quick_jit(jax.value_and_grad(objective(make(remat), variables, arrays, options), has_aux=True))(
            variables["params"]
        )
        for remat in ("none", *remats)
    )
    assert sum(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted[1])) > 1e-2
    for found in others:
        jax.tree.map(same, found, wanted)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "text encoder")) for name in BOXES]
)
def test_a_box_computes_the_same(name):
    box, arrays, options = BOXES[name]
    assert_same(lambda remat: box(SIZES, remat=remat), arrays, options, ["full"])


@pytest.mark.slow
def test_the_whole_model_computes_the_same():
    # Smaller pictures leave a single cell of the coarsest maps, whose batch norm would blow rounding up.
    arrays = (random_array((2, 64, 64, 3)), TOKENS)
    assert_same(lambda remat: UniLSeg(SIZES, remat=remat), arrays, TRAIN, ["blocks", "full"], same_arrays)


@pytest.mark.slow
def test_each_policy_keeps_less_than_the_one_before():
    """Counted from the shapes of what the forward pass hands to the backward pass, without the parameters in it."""
    arrays, kept = (jnp.zeros((2, 128, 128, 3)), TOKENS), []
    variables = jax.eval_shape(UniLSeg(SIZES).init, jax.random.key(0), *arrays)
    for remat in REMATS:
        assert variables == jax.eval_shape(UniLSeg(SIZES, remat=remat).init, jax.random.key(0), *arrays)

        def backward(variables, remat=remat):
            value = objective(UniLSeg(SIZES, remat=remat), variables, arrays, TRAIN)
            return jax.vjp(value, variables["params"], has_aux=True)[1]

        handed_on = Counter(leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(backward, variables)))
        handed_on -= Counter(leaf.shape for leaf in jax.tree.leaves(variables["params"]))
        kept.append(sum(count * math.prod(shape) for shape, count in handed_on.items()))
    none, blocks, full = kept
    assert blocks < none / 2
    assert full < blocks / 2
