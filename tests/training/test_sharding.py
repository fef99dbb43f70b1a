"""The mesh over the eight simulated devices."""

import jax
import numpy as np
import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.training import sharding


def test_the_mesh_spans_all_devices():
    mesh = sharding.make_mesh(16)
    assert mesh.size == jax.device_count() == 8
    assert mesh.axis_names == ("data",)
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,)


@pytest.mark.parametrize("batch_size", [4, 12, 9])
def test_a_batch_that_does_not_divide_is_refused(batch_size):
    with pytest.raises(UserError, match=f"batch size {batch_size} does not divide among 8 devices; .* multiple of 8"):
        sharding.make_mesh(batch_size)


def test_a_batch_is_divided_and_state_is_whole_everywhere():
    mesh = sharding.make_mesh(16)
    batch = {"image": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3), "valid": np.ones((16, 2), bool)}
    sent = sharding.put_batch(batch, mesh)
    assert sent.keys() == batch.keys()
    for name, array in sent.items():
        np.testing.assert_array_equal(array, batch[name])
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [2] * 8
    whole = jax.device_put(np.arange(5), sharding.replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(5,)] * 8
