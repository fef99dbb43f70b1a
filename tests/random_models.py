"""Random tensors in the released layout, for a model small enough to be written many times."""

import dataclasses

import numpy as np

from unilseg_jax.interop.layout import Entry, ImageTower, Transform, released_entries
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.ops.windows import relative_position_index

TINY = Architecture(
    embed_dim=8,
    depths=(2, 1, 1, 1),
    num_heads=(1, 2, 2, 4),
    window_size=4,
    text_width=64,
    text_layers=1,
    sentence_width=24,
    vocab_size=60,
    context_length=20,
    query_width=16,
    query_layers=2,
    ffn_width=32,
)
TINY_TOWER = ImageTower(width=64, layers=1, patch_size=8, positions=5)


def random_tensors(entries: list[Entry], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a tensor for each entry; indices are what they must be, counters are random."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for entry in entries:
        if entry.transform is Transform.INDEX:
            tensors[entry.name] = relative_position_index(round(entry.shape[0] ** 0.5)).astype(np.int64)
        elif entry.transform is Transform.COUNTER:
            tensors[entry.name] = np.asarray(rng.integers(1, 10**9), np.int64)
        else:
            scale = max(np.prod(entry.shape[1:]), 1) ** -0.5
            tensors[entry.name] = np.asarray(scale * rng.standard_normal(entry.shape), np.float32)
    return tensors


def random_released(sizes: Architecture = TINY, **changes) -> dict[str, np.ndarray]:
    """Returns a complete released file's tensors for the sizes with `changes`."""
    return random_tensors(released_entries(dataclasses.replace(sizes, **changes), TINY_TOWER))


def assert_bitwise_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Names, shapes, types and every bit."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name
