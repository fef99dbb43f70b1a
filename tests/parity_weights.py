"""The model of the parity fixtures; each of its tensors follows from its released name and shape alone."""

import math
import zlib

import numpy as np

from unilseg_jax.interop.layout import INTEGERS, ImageTower, Transform, model_entries
from unilseg_jax.interop.torch_import import assemble
from unilseg_jax.models.architecture import Architecture

MINI = Architecture(
    embed_dim=16,
    depths=(2, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    window_size=7,
    text_width=64,
    text_layers=2,
    sentence_width=48,
    vocab_size=512,
    word_len=9,
    query_width=32,
    query_layers=3,
)
MINI_TOWER = ImageTower(width=64, layers=1, patch_size=16, positions=5)


def _centre_and_spread(name: str, rank: int) -> tuple[float, float] | None:
    """Returns mean and standard deviation of a tensor's values; None where the fan-in decides."""
    if name.endswith("running_mean"):
        return 0.0, 0.1
    if "embedding" in name or "relative_position_bias_table" in name:
        return 0.0, 0.3
    if rank == 1:
        return (1.0, 0.1) if name.endswith(".weight") else (0.0, 0.05)
    return (0.0, 1.0) if rank == 0 else None


def parity_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the float32 values of the tensor that is called `name` in the released layout."""
    seed = zlib.crc32(name.encode())
    noise = np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape)
    if name.endswith("running_var"):
        return np.float32(1.0 + 0.2 * np.abs(noise))
    law = _centre_and_spread(name, len(shape))
    if law is None:
        return np.float32(noise / math.sqrt(math.prod(shape[1:])))
    return np.float32(law[0] + law[1] * noise)


def parity_tensors() -> dict[str, np.ndarray]:
    """Returns all tensors of the model `MINI` that hold weights, by released name."""
    entries = model_entries(MINI)
    return {entry.name: parity_tensor(entry.name, entry.shape) for entry in entries if entry.paths}


def parity_variables() -> dict:
    """Returns the variables of `UniLSeg(MINI)`."""
    entries = [entry for entry in model_entries(MINI) if entry.paths]
    assert {entry.transform for entry in model_entries(MINI) if not entry.paths} <= {*INTEGERS, Transform.UNUSED}
    return assemble(entries, parity_tensors())
