"""Small states of a run, and how they are written and read."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
from random_models import random_tensors
from tiny_run import ARCHITECTURE

from unilseg_jax.interop.layout import model_entries
from unilseg_jax.interop.torch_import import assemble
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training import sharding
from unilseg_jax.training.checkpoint import Checkpointer
from unilseg_jax.training.model_directory import CHECKPOINTS
from unilseg_jax.training.state import TrainState, init_state

REDUCED = {"pre_fusion": False, "language_path": False, "vision_path": False}
TINY = Architecture(**{**ARCHITECTURE, **REDUCED, "vocab_size": 5, "context_length": 14})
ADAM = optax.adam(1e-3)
# As Orbax calls a checkpoint that it has not finished, by version.
UNFINISHED = ("9.orbax-checkpoint-tmp", "9.orbax-checkpoint-tmp-1700000000000000")


def tree(seed, width=3):
    rng = np.random.default_rng(seed)

    def noise(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return {
        "params": {"encoder": {"kernel": noise(2, width), "bias": noise(width)}, "scale": noise(4)},
        "batch_stats": {"norm": {"mean": noise(width), "var": noise(width) ** 2}},
    }


def model_variables():
    """Returns variables of the tiny model; `tree` is not one's, which Orbax does not mind."""
    entries = model_entries(TINY)
    return assemble(entries, random_tensors(entries))


def some_state(seed, step, *, width=3, optimizer=ADAM) -> TrainState:
    """Returns a state on all devices in which no two numbers are alike."""
    state = init_state(tree(seed, width), optimizer)
    moved, opt_state = optimizer.update(tree(seed + 100, width)["params"], state.opt_state, state.params)
    state = state.replace(step=jnp.int32(step), params=optax.apply_updates(state.params, moved), opt_state=opt_state)
    return jax.device_put(state, sharding.replicated(sharding.make_mesh(8)))


def save(folder, *states, keep=2):
    checkpointer = Checkpointer(folder, keep)
    for state in states:
        checkpointer.save(state)
        checkpointer.wait()
    checkpointer.close()


def restore(folder, state):
    checkpointer = Checkpointer(folder)
    restored = checkpointer.restore_latest(state)
    checkpointer.close()
    return restored


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def on_disk(folder):
    return sorted(path.name for path in (folder / CHECKPOINTS).iterdir())


def leave_unfinished(folder, finished, name):
    """Leaves behind what a process killed while it wrote step 9 leaves."""
    partial = folder / CHECKPOINTS / name
    shutil.copytree(folder / CHECKPOINTS / str(finished), partial)
    (partial / "_CHECKPOINT_METADATA").unlink(missing_ok=True)
    next(path for path in sorted((partial / "variables").rglob("*")) if path.is_file()).write_bytes(b"")
