"""Every intermediate of the released computation, in float32, for an even and an odd picture size."""

import hashlib
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_weights import MINI, parity_tensors, parity_variables
from quick_compile import quick_jit

from unilseg_jax.models.unilseg import UniLSeg

# Both are of float32 rounding. A wider one would hide a wrong epsilon.
INTERMEDIATE, LOGITS = 2e-5, 5e-5
TOLERANCES = {
    **{f"{kind}_{level}": INTERMEDIATE for kind in ("swin", "fused", "layer") for level in (1, 2, 3, 4)},
    **dict.fromkeys(("words", "sentence", "mask_features", "queries"), INTERMEDIATE),
    **dict.fromkeys(("layer_logits", "logits"), LOGITS),
}

# Of all tensors that hold weights. Computed with the function that came with the fixtures, not with ours.
WEIGHTS = "0ed3c19683071fe42740e00abb76d3bbaf9cc8a62255b6b2c01d0b05ed60c5fe"


@pytest.fixture(scope="module")
def variables():
    return parity_variables()


@pytest.fixture(scope="module", params=["mini_square", "mini_odd"])
def case(request, golden_dir, variables):
    """The fixture's arrays, and ours by the same names."""
    with np.load(golden_dir / f"{request.param}.npz") as file:
        wanted = dict(file)
    images = jnp.asarray(wanted.pop("image").transpose(0, 2, 3, 1))
    tokens = jnp.asarray(wanted.pop("tokens"), jnp.int32)[:, None]
    with jax.default_matmul_precision("highest"):
        output = quick_jit(UniLSeg(MINI).apply)(variables, images, tokens)
    return wanted, by_fixture_name(output)


def by_fixture_name(output):
    """Returns a model's output as the fixtures have it: one prompt, channels first."""

    def channels_first(x):
        return np.moveaxis(np.asarray(x), -1, -3)

    features = output.features
    found = {
        "words": features["words"][:, 0],
        "sentence": features["sentence"][:, 0],
        "mask_features": channels_first(features["mask_features"][:, 0]),
        "queries": features["queries"],
        "layer_logits": output.layer_logits,
        "logits": output.mask_logits,
    }
    for index in range(4):
        found[f"swin_{index + 1}"] = channels_first(features["swin"][index])
        found[f"fused_{index + 1}"] = channels_first(features["fused"][index][:, 0])
        found[f"layer_{index + 1}"] = channels_first(features["levels"][index][:, 0])
    return found


@pytest.mark.parametrize("name", TOLERANCES)
def test_is_the_released_computation(case, name):
    wanted, found = case
    assert found[name].dtype == np.float32
    assert found[name].shape == wanted[name].shape
    np.testing.assert_allclose(found[name], wanted[name], atol=TOLERANCES[name], rtol=0)


def test_nothing_of_the_fixture_is_left_out(case):
    wanted, _ = case
    assert set(wanted) == set(TOLERANCES)


def test_the_weights_fill_exactly_the_model(variables):
    images, tokens = jnp.zeros((1, 32, 32, 3)), jnp.ones((1, 1, MINI.word_len), jnp.int32)
    wanted = jax.eval_shape(UniLSeg(MINI).init, jax.random.key(0), images, tokens)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(wanted))


def test_the_weights_are_those_of_the_fixtures_to_the_last_bit():
    digest = hashlib.sha256()
    for name, value in sorted(parity_tensors().items()):
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode() + value.astype("<f4").tobytes())
    assert digest.hexdigest() == WEIGHTS


def test_the_weights_are_those_that_came_with_the_fixtures(shared_dir):
    spec = importlib.util.spec_from_file_location("fixture_weights", shared_dir / "parity" / "weights.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    layout = json.loads((shared_dir / "spec" / "layout_mini.json").read_text())["tensors"]
    ours = parity_tensors()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs.tensor(name, tuple(layout[name][0])), err_msg=name)
    unused = [name for name in layout if name not in ours]
    assert all("visual." in n or n.endswith(("logit_scale", "index", "num_batches_tracked")) for n in unused)
