"""The mesh over the eight simulated devices, and what lies where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_run import ARCHITECTURE

from unilseg_jax.errors import UserError
from unilseg_jax.models.architecture import BATCH_NORMS, Architecture
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training import optim, sharding
from unilseg_jax.training.state import init_state, init_variables


@pytest.mark.parametrize(("fsdp", "shape"), [(1, (8, 1)), (2, (4, 2)), (8, (1, 8))])
def test_the_mesh_spans_all_devices(fsdp, shape):
    mesh = sharding.make_mesh(16, fsdp)
    assert mesh.devices.shape == shape
    assert mesh.size == jax.device_count() == 8
    assert mesh.axis_names == ("data", "fsdp")
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("batch_size", [4, 12, 9])
def test_a_batch_that_does_not_divide_is_refused(batch_size):
    with pytest.raises(UserError, match=f"batch size {batch_size} does not divide among 8 devices; .* multiple of 8"):
        sharding.make_mesh(batch_size)


def test_a_micro_batch_that_does_not_divide_is_refused():
    assert sharding.make_mesh(48, accumulate=3).size == 8
    with pytest.raises(UserError, match=r"16 does not divide among 8 devices and 3 micro-batches; .* multiple of 24"):
        sharding.make_mesh(16, accumulate=3)


@pytest.mark.parametrize("fsdp", [3, 16, 0])
def test_devices_that_cannot_be_grouped_are_refused(fsdp):
    with pytest.raises(UserError, match=rf"mesh\.fsdp {fsdp} does not divide 8 devices"):
        sharding.make_mesh(16, fsdp)


@pytest.mark.parametrize("fsdp", [1, 4])
def test_a_batch_is_divided_among_all_devices_and_read_back(fsdp):
    mesh = sharding.make_mesh(16, fsdp)
    batch = {"image": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3), "valid": np.ones((16, 2), bool)}
    sent = sharding.put_batch(batch, mesh)
    assert sent.keys() == batch.keys()
    for name, array in sent.items():
        assert array.dtype == batch[name].dtype
        np.testing.assert_array_equal(array, batch[name])
        np.testing.assert_array_equal(sharding.local_rows(array), batch[name])
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [2] * 8
    whole = jax.device_put(np.arange(5), sharding.replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(5,)] * 8


@pytest.mark.parametrize(
    ("shape", "divided"),
    [
        ((64, 32), ("fsdp",)),
        ((32, 64), (None, "fsdp")),
        ((64, 64), (None, "fsdp")),
        ((3, 3, 64, 32), (None, None, "fsdp")),
        ((62, 36), (None, "fsdp")),  # the longest that 4 divides
        ((62, 62), ()),
        ((8, 8), ()),
        ((64,), ()),
        ((), ()),
    ],
)
def test_the_longest_axis_that_divides_is_divided(shape, divided):
    mesh = sharding.make_mesh(8, fsdp=4)
    found = sharding.state_shardings(mesh, {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}, smallest=1000)
    assert found["kernel"].spec == PartitionSpec(*divided)


def test_moments_and_moving_average_lie_where_their_parameters_do():
    mesh = sharding.make_mesh(8, fsdp=2)
    params = {"a": {"kernel": jnp.ones((300, 300))}, "b": {"kernel": jnp.ones((4, 400, 200)), "bias": jnp.ones(200)}}
    optimizer = optim.make_optimizer(params, lambda step: 1e-3, lr_scales=((".*", 1.0),), clip_norm=1.0)
    state = init_state({"params": params, "batch_stats": {"mean": jnp.ones(3)}}, optimizer, ema=True)
    specs = jax.tree.map(lambda x: x.spec, sharding.state_shardings(mesh, state))
    wanted = {
        "a": {"kernel": PartitionSpec(None, "fsdp")},
        "b": {"kernel": PartitionSpec(None, "fsdp"), "bias": PartitionSpec()},
    }
    assert specs.params == wanted
    assert specs.ema["params"] == wanted
    assert specs.step == PartitionSpec()
    adam = specs.opt_state[1]
    assert (adam.count, adam.mu, adam.nu) == (PartitionSpec(), wanted, wanted)
    placed = jax.device_put(state, sharding.state_shardings(mesh, state))
    assert {shard.data.shape for shard in placed.params["a"]["kernel"].addressable_shards} == {(300, 150)}


def test_the_released_model_needs_an_eighth_of_the_memory_on_eight_devices():
    model = UniLSeg(Architecture())
    params = jax.eval_shape(lambda: init_variables(model, 0))["params"]
    shardings = sharding.state_shardings(sharding.make_mesh(8, fsdp=8), params)
    total = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    held = jax.tree.map(lambda leaf, place: np.prod(place.shard_shape(leaf.shape)), params, shardings)
    assert total / 8 < sum(jax.tree.leaves(held)) < 1.03 * total / 8


def test_without_fsdp_every_device_holds_everything():
    params = {"kernel": jnp.ones((1024, 1024))}
    shardings = sharding.state_shardings(sharding.make_mesh(8), params)
    assert shardings["kernel"].is_fully_replicated


def test_parts_of_the_batch_with_statistics_of_their_own():
    mesh = sharding.make_mesh(8, fsdp=2)
    assert [sharding.norm_groups(name, mesh) for name in BATCH_NORMS] == [1, 8, 0]
    variables = [
        jax.eval_shape(lambda g=groups: init_variables(UniLSeg(Architecture(**ARCHITECTURE), norm_groups=g), 0))
        for groups in (1, 8, 0)
    ]
    assert variables[0] == variables[1] == variables[2]
