"""Losses by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit

from unilseg_jax import losses
from unilseg_jax.losses import binary_cross_entropy, dice

segmentation_loss = quick_jit(
    losses.segmentation_loss, static_argnames=("bce_weight", "dice_weight", "auxiliary_weight")
)

CORNER = jnp.array([[1.0, 0.0], [0.0, 0.0]])
LN3 = float(np.log(3))  # the logit of 3 / 4


def logit_of(prob):
    return float(np.log(prob / (1 - prob)))


def test_cross_entropy_by_hand():
    # Probabilities 3/4 at the object, 1/4, 1/2, 3/4 beside it.
    logits = jnp.array([[LN3, -LN3], [0.0, LN3]])
    wanted = (-np.log(0.75) - np.log(0.75) - np.log(0.5) - np.log(0.25)) / 4
    assert binary_cross_entropy(logits, CORNER) == pytest.approx(wanted, rel=1e-6)


def test_cross_entropy_of_extreme_logits_is_finite():
    found = binary_cross_entropy(jnp.array([[[200.0]], [[-200.0]], [[200.0]]]), jnp.array([[[0.0]], [[1.0]], [[1.0]]]))
    np.testing.assert_allclose(found, [200, 200, 0], rtol=1e-6)


def test_dice_by_hand():
    logits = jnp.array([[LN3, -LN3], [0.0, LN3]])
    # Shared 3/4, probabilities 9/4, ground truth 1, and one pixel added to both parts.
    assert dice(logits, CORNER) == pytest.approx(1 - (2 * 0.75 + 1) / (2.25 + 1 + 1), rel=1e-6)


def test_dice_of_a_perfect_and_of_an_inverted_mask():
    sure = 100 * (2 * CORNER - 1)
    assert dice(sure, CORNER) == pytest.approx(0, abs=1e-6)
    assert dice(-sure, CORNER) == pytest.approx(1 - 1 / (3 + 1 + 1), rel=1e-6)


def test_dice_of_an_empty_ground_truth_falls_with_the_probabilities():
    empty = jnp.zeros((2, 2))
    found = [float(dice(jnp.full((2, 2), logit_of(prob)), empty)) for prob in (0.9, 0.5, 0.1)]
    np.testing.assert_allclose(found, [1 - 1 / (4 * prob + 1) for prob in (0.9, 0.5, 0.1)], rtol=1e-5)
    assert dice(jnp.full((2, 2), -100.0), empty) == pytest.approx(0, abs=1e-6)


def test_leading_axes_are_kept():
    logits, masks = jnp.zeros((2, 3, 4, 5)), jnp.zeros((2, 3, 4, 5)).at[0, 1].set(1.0)
    assert binary_cross_entropy(logits, masks).shape == (2, 3)
    found = dice(logits, masks)
    assert found.shape == (2, 3)
    assert found[0, 1] == pytest.approx(1 - (20 + 1) / (10 + 20 + 1), rel=1e-6)
    assert found[1, 1] == pytest.approx(1 - 1 / (10 + 1), rel=1e-6)


@pytest.fixture
def case():
    """Three layers, two images, two prompts, at a quarter of the size of the masks."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((3, 2, 2, 2, 3)), jnp.float32)
    masks = jnp.asarray(rng.random((2, 2, 8, 12)) > 0.5, jnp.float32)
    return logits, masks


def upsampled(logits):
    """Returns (2, 3) maps at (8, 12), bilinear with the corners' centres aligned, in float64."""
    rows = np.array([[1 - r / 7, r / 7] for r in range(8)])
    columns = np.maximum(1 - np.abs(np.arange(12)[:, None] * 2 / 11 - np.arange(3)), 0)
    return np.einsum("ri,...ij,cj->...rc", rows, np.asarray(logits, np.float64), columns)


def per_sample(logits, masks):
    """Returns cross-entropy and Dice loss of each map, float64."""
    probs, masks = 1 / (1 + np.exp(-upsampled(logits))), np.asarray(masks, np.float64)
    bce = -np.where(masks == 1, np.log(probs), np.log(1 - probs)).mean((-2, -1))
    shared, total = (probs * masks).sum((-2, -1)), probs.sum((-2, -1)) + masks.sum((-2, -1))
    return bce, 1 - (2 * shared + 1) / (total + 1)


def test_all_terms_by_numpy(case):
    logits, masks = case
    loss, terms = segmentation_loss(
        logits, masks, jnp.ones((2, 2), bool), bce_weight=2.0, dice_weight=3.0, auxiliary_weight=0.4
    )
    bce, overlap = (np.mean(x, axis=(1, 2)) for x in per_sample(logits, masks[None]))
    layers = 2 * bce + 3 * overlap
    assert terms["bce"] == pytest.approx(bce[-1], rel=1e-5)
    assert terms["dice"] == pytest.approx(overlap[-1], rel=1e-5)
    assert terms["auxiliary"] == pytest.approx(layers[:2].mean(), rel=1e-5)
    assert loss == pytest.approx(layers[-1] + 0.4 * layers[:2].mean(), rel=1e-5)
    assert terms["loss"] == loss
    assert set(terms) == {"loss", "bce", "dice", "auxiliary"}


def test_prompts_that_fill_the_batch_do_not_count(case):
    logits, masks = case
    valid = jnp.array([[True, False], [True, True]])
    noisy = logits.at[:, 0, 1].set(1000.0), masks.at[0, 1].set(0.0)
    loss, terms = segmentation_loss(*noisy, valid)
    bce, overlap = per_sample(logits, masks[None])
    counted = np.asarray(valid)
    assert terms["bce"] == pytest.approx(bce[-1][counted].mean(), rel=1e-5)
    assert terms["dice"] == pytest.approx(overlap[-1][counted].mean(), rel=1e-5)
    gradient = quick_jit(jax.grad(lambda x: losses.segmentation_loss(x, noisy[1], valid)[0]))(noisy[0])
    np.testing.assert_array_equal(gradient[:, 0, 1], np.zeros((3, 2, 3)))
    assert np.isfinite(loss)


def test_a_batch_of_fillings_has_no_loss(case):
    loss, _ = segmentation_loss(*case, jnp.zeros((2, 2), bool))
    assert loss == 0


def test_a_single_layer_has_no_auxiliary_loss(case):
    logits, masks = case
    valid = jnp.ones((2, 2), bool)
    loss, terms = segmentation_loss(logits[-1:], masks, valid, auxiliary_weight=5.0)
    assert terms["auxiliary"] == 0
    wanted, _ = segmentation_loss(logits, masks, valid, auxiliary_weight=0.0)
    assert loss == pytest.approx(float(wanted), rel=1e-6)


def test_the_gradient_pulls_towards_the_mask():
    logits = jnp.zeros((2, 1, 1, 2, 2))
    masks = jnp.zeros((1, 1, 8, 8)).at[:, :, :, :4].set(1.0)
    for weights in ({"bce_weight": 0.0}, {"dice_weight": 0.0}):
        loss = functools.partial(losses.segmentation_loss, **weights)
        gradient = quick_jit(jax.grad(lambda x, f=loss: f(x, masks, jnp.ones((1, 1), bool))[0]))(logits)
        assert (gradient[..., 0] < 0).all()
        assert (gradient[..., 1] > 0).all()


def test_bfloat16_logits_give_a_float32_loss(case):
    logits, masks = case
    loss, _ = segmentation_loss(logits.astype(jnp.bfloat16), masks, jnp.ones((2, 2), bool))
    assert loss.dtype == jnp.float32
