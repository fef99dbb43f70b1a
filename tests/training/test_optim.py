"""Learning rates at their corners, and what each group of parameters receives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.training import optim

PARAMS = {
    "image_encoder": {"norm0": {"scale": jnp.array([1.0, 2.0])}},
    "language_path": {"query": {"kernel": jnp.array([[3.0], [4.0]])}},
}
GRADS = {
    "image_encoder": {"norm0": {"scale": jnp.array([0.5, -0.25])}},
    "language_path": {"query": {"kernel": jnp.array([[1.0], [-2.0]])}},
}
EVERYTHING = ((".*", 1.0),)
OTHER_ADAM = {"betas": (0.8, 0.95), "eps": 0.1}


def updates(*, lr_scales=EVERYTHING, clip_norm=0.0, grads=GRADS, steps=1, rate=1e-2, **more):
    """Returns the change of the parameters in the last of `steps` steps with the same gradients."""
    optimizer = optim.make_optimizer(PARAMS, lambda step: rate, lr_scales=lr_scales, clip_norm=clip_norm, **more)
    opt_state = optimizer.init(PARAMS)
    for _ in range(steps):
        change, opt_state = optimizer.update(grads, opt_state, PARAMS)
    return change


def test_learning_rate_at_its_corners():
    rate = optim.learning_rate(peak=1.0, total_steps=100, warmup_steps=10, decay_at=(0.5, 0.9), decay_factor=0.1)
    wanted = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 49: 1.0, 50: 0.1, 89: 0.1, 90: 0.01, 99: 0.01}
    found = {step: float(rate(jnp.int32(step))) for step in wanted}
    assert found == pytest.approx(wanted, rel=1e-5)


def test_learning_rate_without_warm_up_and_decay_is_constant():
    rate = optim.learning_rate(peak=3e-4, total_steps=10, warmup_steps=0, decay_at=(), decay_factor=0.1)
    assert [float(rate(step)) for step in (0, 5, 9)] == pytest.approx([3e-4] * 3)


def test_decay_inside_the_warm_up_counts_too():
    rate = optim.learning_rate(peak=1.0, total_steps=10, warmup_steps=8, decay_at=(0.2,), decay_factor=0.5)
    assert float(rate(1)) == pytest.approx(2 / 8)
    assert float(rate(2)) == pytest.approx(3 / 8 / 2)


def test_a_cosine_falls_from_the_end_of_the_warm_up_to_nothing():
    rate = optim.learning_rate(peak=2.0, total_steps=110, warmup_steps=10, schedule="cosine", decay_at=(0.1,))
    wanted = {0: 0.2, 9: 2.0, 10: 2.0, 35: 1 + np.sqrt(0.5), 60: 1.0, 85: 1 - np.sqrt(0.5), 110: 0.0}
    assert {step: float(rate(jnp.int32(step))) for step in wanted} == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_the_first_rule_that_matches_counts():
    rules = (("image_encoder/norm", 0.5), ("image_encoder/", 0.1), (".*", 2.0))
    params = {"image_encoder": {"norm0": {"scale": 0}, "patch": {"kernel": 0}}, "norm": {"scale": 0}}
    assert optim.group_scales(params, rules) == {
        "image_encoder": {"norm0": {"scale": 0.5}, "patch": {"kernel": 0.1}},
        "norm": {"scale": 2.0},
    }


def test_rules_are_matched_from_the_start_of_a_path():
    with pytest.raises(UserError, match="norm0"):
        optim.group_scales(PARAMS, (("norm0", 0.5), (".*", 1.0)))


def test_a_parameter_without_a_rule_is_refused():
    with pytest.raises(UserError, match=r"no rule .* parameter language_path/query/kernel"):
        optim.group_scales(PARAMS, (("image_encoder/", 0.1),))


def test_a_rule_that_nothing_is_left_for_is_refused():
    with pytest.raises(UserError, match="language_path"):
        optim.group_scales(PARAMS, ((".*", 1.0), ("language_path/", 0.1)))


def test_the_image_encoder_moves_a_tenth_as_far():
    plain = updates(steps=3)
    scaled = updates(steps=3, lr_scales=(("image_encoder/", 0.1), (".*", 1.0)))
    norm, kernel = plain["image_encoder"]["norm0"]["scale"], plain["language_path"]["query"]["kernel"]
    np.testing.assert_allclose(scaled["image_encoder"]["norm0"]["scale"], 0.1 * norm, rtol=1e-6)
    np.testing.assert_array_equal(scaled["language_path"]["query"]["kernel"], kernel)
    assert np.abs(norm).min() > 1e-3


def test_a_factor_of_zero_freezes():
    change = updates(lr_scales=(("image_encoder/", 0.0), (".*", 1.0)))
    assert not np.any(change["image_encoder"]["norm0"]["scale"])
    assert np.all(change["language_path"]["query"]["kernel"])


FROZEN = (("image_encoder/", 0.0), (".*", 1.0))


def test_what_is_frozen_has_no_moments_and_no_part_in_the_norm():
    optimizer = optim.make_optimizer(PARAMS, lambda step: 1.0, lr_scales=FROZEN, clip_norm=1.0)
    grads = {**GRADS, "image_encoder": {"norm0": {"scale": jnp.array([jnp.nan, 1e6])}}}
    change, opt_state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(change["image_encoder"]["norm0"]["scale"], np.zeros(2))
    moments = optax.tree_utils.tree_get(opt_state, "mu")
    assert [leaf.shape for leaf in jax.tree.leaves(moments)] == [(2, 1)]
    kernel = GRADS["language_path"]["query"]["kernel"]
    np.testing.assert_allclose(moments["language_path"]["query"]["kernel"], 0.1 * kernel / np.sqrt(5), rtol=1e-5)


def test_every_group_with_a_rate_of_its_own_is_told():
    rules = (("image_encoder/", 0.1), ("text_encoder/.*bias", 0.0), (".*", 1.0))
    wanted = {"learning_rate": 2.0, "learning_rate_image_encoder": 0.2, "learning_rate_text_encoder_bias": 0.0}
    found = optim.learning_rates(2.0, rules)
    assert found == pytest.approx({f"train/{name}": value for name, value in wanted.items()})


def test_trainable_is_what_has_a_learning_rate():
    assert optim.trainable(PARAMS, EVERYTHING) is None
    assert optim.trainable(PARAMS, FROZEN) == {
        "image_encoder": {"norm0": {"scale": False}},
        "language_path": {"query": {"kernel": True}},
    }


def test_decay_is_apart_from_the_gradient_and_goes_with_the_learning_rate():
    plain = updates(lr_scales=(("image_encoder/", 0.1), (".*", 1.0)))
    decays = ((".*/scale$", 0.3), (".*", 0.5))
    decayed = updates(lr_scales=(("image_encoder/", 0.1), (".*", 1.0)), weight_decays=decays)
    taken = jax.tree.map(lambda a, b: a - b, plain, decayed)
    scale, kernel = (tree["image_encoder"]["norm0"]["scale"] for tree in (taken, PARAMS))
    np.testing.assert_allclose(scale, 1e-2 * 0.1 * 0.3 * kernel, rtol=1e-4)
    np.testing.assert_allclose(
        taken["language_path"]["query"]["kernel"], 1e-2 * 0.5 * PARAMS["language_path"]["query"]["kernel"], rtol=1e-4
    )


def test_what_is_frozen_does_not_decay():
    change = updates(lr_scales=FROZEN, weight_decays=((".*", 0.5),))
    assert not np.any(change["image_encoder"]["norm0"]["scale"])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("image_encoder/", 0.1),), r"no rule of optim\.weight_decays matches parameter language_path/query/kernel"),
        (((".*", 0.0), ("language_path/", 0.1)), r"optim\.weight_decays: \['language_path/'\] match no parameter"),
        (((".*", 0.0), (".*", 0.1)), r"optim\.weight_decays: \['\.\*'\] match no parameter"),
    ],
)
def test_decays_cover_every_parameter_exactly_once(rules, message):
    with pytest.raises(UserError, match=message):
        updates(weight_decays=rules)


@pytest.mark.parametrize(("given", "b1", "b2", "eps"), [({}, 0.9, 0.999, 1e-8), (OTHER_ADAM, 0.8, 0.95, 0.1)])
def test_steps_are_those_of_adam(given, b1, b2, eps):
    """Compared with Adam written out, epsilon outside the root."""
    first, second = np.zeros(2), np.zeros(2)
    rate = lambda step: 0.01 * (step + 1)  # noqa: E731
    optimizer = optim.make_optimizer(PARAMS, rate, lr_scales=EVERYTHING, clip_norm=0.0, **given)
    opt_state = optimizer.init(PARAMS)
    for step in range(1, 4):
        grads = jax.tree.map(lambda grad, step=step: grad * step, GRADS)
        change, opt_state = optimizer.update(grads, opt_state, PARAMS)
        grad = np.asarray(grads["image_encoder"]["norm0"]["scale"], np.float64)
        first, second = b1 * first + (1 - b1) * grad, b2 * second + (1 - b2) * grad**2
        wanted = -0.01 * step * (first / (1 - b1**step)) / (np.sqrt(second / (1 - b2**step)) + eps)
        np.testing.assert_allclose(change["image_encoder"]["norm0"]["scale"], wanted, rtol=1e-4)


def test_the_norm_of_all_gradients_together_is_clipped():
    """Adam forgets a constant factor, so its moments are compared."""
    norm = float(optax.tree.norm(GRADS))
    for clip_norm, factor in ((1.0, 1 / norm), (10.0, 1.0), (0.0, 1.0)):
        optimizer = optim.make_optimizer(PARAMS, lambda step: 1.0, lr_scales=EVERYTHING, clip_norm=clip_norm)
        _, opt_state = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
        first_moments = optax.tree_utils.tree_get(opt_state, "mu")
        wanted = jax.tree.map(lambda grad, factor=factor: 0.1 * factor * grad, GRADS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first_moments, wanted)
