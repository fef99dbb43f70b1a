"""How arrays are laid out over devices: the only place that knows the mesh."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from unilseg_jax.errors import UserError


def make_mesh(batch_size: int) -> Mesh:
    """Returns a mesh with one axis, `data`, over all devices.

    The axis is Auto: Swin's window reshapes fail under JAX's default of explicit axes, and batch norm over
    a sharded batch becomes global without further ado.

    Raises:
        UserError: the batch cannot be divided among the devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"batch size {batch_size} does not divide among {devices} devices; "
            f"set input.batch_size to a multiple of {devices}"
        )
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Sends a batch to the devices, its first axis divided among them."""
    return jax.device_put(dict(batch), split_batch(mesh))
