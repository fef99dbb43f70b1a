"""How arrays are laid out over devices: the only place that knows the mesh.

The batch is divided over all devices. Over the axis `fsdp` the parameters and the optimiser's state are divided
too, so that a device holds a share of them and gathers a layer when it needs it; over `data` they are repeated.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from unilseg_jax.errors import UserError

AXES = ("data", "fsdp")
SMALLEST = 2**16
"""Numbers of the smallest array that is divided; gathering less costs more time than it saves memory."""


def make_mesh(batch_size: int, fsdp: int = 1, accumulate: int = 1) -> Mesh:
    """Returns a mesh with the axes `data` and `fsdp` over all devices of all processes.

    The axes are Auto: Swin's window reshapes fail under JAX's default of explicit axes, and batch norm over
    a sharded batch becomes global without further ado.

    Args:
        batch_size: pictures per step, of all devices together.
        fsdp: devices that share one copy of the parameters.
        accumulate: micro-batches per step, each of which is divided among the devices.

    Raises:
        UserError: the devices cannot be grouped so, or the batch cannot be divided among them.
    """
    devices = jax.device_count()
    if fsdp < 1 or devices % fsdp:
        raise UserError(f"mesh.fsdp {fsdp} does not divide {devices} devices; set it to a divisor of {devices}")
    if batch_size % (devices * accumulate):
        parts = f" and {accumulate} micro-batches" if accumulate > 1 else ""
        raise UserError(
            f"batch size {batch_size} does not divide among {devices} devices{parts}; "
            f"set input.batch_size to a multiple of {devices * accumulate}"
        )
    return jax.make_mesh((devices // fsdp, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding of arrays whose axis number `axis` is the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def state_shardings(mesh: Mesh | AbstractMesh, abstract_state: Any, smallest: int = SMALLEST) -> Any:
    """Returns the sharding of each array of a state, by its shape alone: moments lie where their parameters do.

    The longest axis that the size of `fsdp` divides is divided, of equal ones the last; small arrays and those
    without such an axis are replicated.

    Args:
        mesh: see `make_mesh`.
        abstract_state: any nested structure of arrays or of their shapes (`jax.eval_shape`).
        smallest: numbers of the smallest array that is divided.
    """
    shares = mesh.shape["fsdp"]

    def rule(leaf) -> NamedSharding:
        fitting = [axis for axis, length in enumerate(leaf.shape) if length and length % shares == 0]
        if shares == 1 or not fitting or math.prod(leaf.shape) < smallest:
            return replicated(mesh)
        longest = max(fitting, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(rule, abstract_state)


def placed(shapes: Any, shardings: Any) -> Any:
    """Returns the shapes of a structure with their shardings, as a checkpoint is to be read into."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, shardings
    )


def norm_groups(batch_norm: str, mesh: Mesh) -> int:
    """Returns `layers.BatchNorm.groups` for a value of `config.batch_norm`; see `architecture.BATCH_NORMS`."""
    return {"global": 1, "local": mesh.size, "frozen": 0}[batch_norm]


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Sends a batch to the devices, its first axis divided among them.

    Args:
        batch: this process's rows of each array; of one process, all of them.
        mesh: see `make_mesh`.

    Returns:
        The global arrays, of which each process holds its own rows.
    """
    split = split_batch(mesh)
    return {name: jax.make_array_from_process_local_data(split, rows) for name, rows in batch.items()}


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array that is divided as a batch; undoes `put_batch`."""
    shards = {shard.index[0].indices(len(array))[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
