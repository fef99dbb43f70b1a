"""Batch norm: PyTorch's statistics, over the global batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from quick_compile import quick_jit
from tiny_model import random_array, random_variables

from unilseg_jax.models.layers import BatchNorm, ConvNormRelu

CHANNELS = {"params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}}


def test_a_step_of_training_by_hand():
    stats = {"mean": jnp.array([1.0]), "var": jnp.array([2.0])}
    x = jnp.array([0.0, 2.0, 4.0, 6.0])[:, None]  # mean 3, variance 5, unbiased 20 / 3
    found, updated = BatchNorm().apply({**CHANNELS, "batch_stats": stats}, x, train=True, mutable="batch_stats")
    np.testing.assert_allclose(found, 1 + 2 * (np.asarray(x) - 3) / np.sqrt(5 + 1e-5), rtol=1e-6)
    assert updated["batch_stats"]["mean"] == pytest.approx(0.9 * 1 + 0.1 * 3, rel=1e-6)
    assert updated["batch_stats"]["var"] == pytest.approx(0.9 * 2 + 0.1 * 20 / 3, rel=1e-6)


def test_evaluation_takes_the_running_statistics_and_leaves_them():
    stats = {"mean": jnp.array([1.0]), "var": jnp.array([4.0])}
    x = jnp.array([[1.0], [5.0]])
    found, updated = BatchNorm().apply({**CHANNELS, "batch_stats": stats}, x, train=False, mutable="batch_stats")
    np.testing.assert_allclose(found, [[1.0], [1 + 2 * 4 / np.sqrt(4 + 1e-5)]], rtol=1e-6)
    assert (updated["batch_stats"]["mean"], updated["batch_stats"]["var"]) == (1, 4)


def test_initialising_does_not_count_as_a_batch():
    variables = BatchNorm().init(jax.random.key(0), 5 + random_array((4, 3)), train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))


def test_all_axes_but_the_last_make_up_the_batch():
    x = random_array((2, 3, 4, 5))
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    found, updated = BatchNorm().apply(variables, x, train=True, mutable="batch_stats")
    flat = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(found.reshape(-1, 5).mean(0), np.zeros(5), atol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * flat.mean(0), atol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * flat.var(0, ddof=1), atol=1e-6)


def test_a_single_value_gives_no_nan():
    variables = BatchNorm().init(jax.random.key(0), jnp.ones((1, 2)), train=False)
    found, updated = BatchNorm().apply(variables, 3 * jnp.ones((1, 2)), train=True, mutable="batch_stats")
    np.testing.assert_array_equal(found, np.zeros((1, 2)))
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.9, 0.9], rtol=1e-6)


# bfloat16 has a step of 4 at 1000: what it can hold there is spread wider than one.
@pytest.mark.parametrize(("dtype", "spread"), [(jnp.float32, 1.0), (jnp.bfloat16, 20.0)])
def test_the_variance_keeps_its_digits_far_from_zero(dtype, spread):
    x = (1000 + spread * random_array((64, 1))).astype(dtype)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    found, _ = BatchNorm().apply(variables, x, train=True, mutable="batch_stats")
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(found, (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5), atol=1e-3)


def test_statistics_are_float32_for_bfloat16_maps():
    x = random_array((2, 4, 4, 8)).astype(jnp.bfloat16)
    layer = ConvNormRelu(6, 3, jnp.bfloat16)
    variables = random_variables(layer, x, train=True)
    found, updated = quick_jit(lambda v: layer.apply(v, x, train=True, mutable="batch_stats"))(variables)
    assert found.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {np.dtype("float32")}


def test_eight_devices_are_one():
    x = random_array((8, 4, 5, 6)) + 3 * jnp.arange(8.0)[:, None, None, None]
    layer = ConvNormRelu(7, 3)
    variables = random_variables(layer, x, train=True)

    @jax.jit
    def train(variables, x):
        return layer.apply(variables, x, train=True, mutable="batch_stats")

    wanted = train(variables, x)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    found = train(
        jax.device_put(variables, NamedSharding(mesh, PartitionSpec())),
        jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))),
    )
    assert len(found[0].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


def test_parts_of_the_batch_are_normalised_apart():
    x = random_array((4, 3, 5)) + jnp.arange(4.0)[:, None, None]
    variables = random_variables(BatchNorm(), x, train=True)
    found, updated = BatchNorm(2).apply(variables, x, train=True, mutable="batch_stats")
    parts = [BatchNorm().apply(variables, x[at : at + 2], train=True, mutable="batch_stats") for at in (0, 2)]
    np.testing.assert_allclose(found, jnp.concatenate([part[0] for part in parts]), atol=1e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, parts[0][1], parts[1][1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), updated, mean)
    whole, _ = BatchNorm().apply(variables, x, train=True, mutable="batch_stats")
    assert np.abs(found - whole).max() > 0.1


def test_devices_with_statistics_of_their_own_do_not_talk():
    x = random_array((8, 4, 5))
    variables = random_variables(BatchNorm(), x, train=True)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))

    def program(groups):
        layer = BatchNorm(groups)
        run = jax.jit(
            lambda x: layer.apply(variables, x, train=True, mutable="batch_stats")[0],
            in_shardings=split,
            out_shardings=split,
        )
        return run.lower(x).compile().as_text()

    assert "all-reduce" in program(1)
    assert not any(word in program(8) for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))


def test_frozen_statistics_are_taken_in_training_and_stay():
    x = random_array((4, 3, 5))
    variables = random_variables(BatchNorm(), x, train=True)
    found, updated = BatchNorm(0).apply(variables, x, train=True, mutable="batch_stats")
    np.testing.assert_array_equal(found, BatchNorm().apply(variables, x, train=False))
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


@pytest.mark.torch
def test_a_step_of_training_is_torch_s():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm2d(5).train()
    variables = BatchNorm().init(jax.random.key(0), jnp.zeros((1, 5)), train=False)
    for step in range(3):
        x = (step + 1) * random_array((2, 3, 4, 5), step) + step
        wanted = theirs(torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy()))
        found, updated = BatchNorm().apply(variables, x, train=True, mutable="batch_stats")
        variables = {**variables, **updated}
        np.testing.assert_allclose(found, wanted.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5)
        np.testing.assert_allclose(updated["batch_stats"]["mean"], theirs.running_mean.numpy(), atol=1e-6)
        np.testing.assert_allclose(updated["batch_stats"]["var"], theirs.running_var.numpy(), rtol=1e-5)
