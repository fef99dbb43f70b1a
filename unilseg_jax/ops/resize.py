"""Bilinear resizing in PyTorch's two conventions, without anti-aliasing."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64


def resize_bilinear(x: Float[Array, "*b h w c"], size: tuple[int, int]) -> Float[Array, "*b h2 w2 c"]:
    """Resizes maps with half-pixel centres (`align_corners=False`).

    Args:
        x: maps, channels last.
        size: rows and columns wanted.
    """
    shape = (*x.shape[:-3], *size, x.shape[-1])
    if shape == x.shape:
        return x
    return jax.image.resize(x, shape, "linear", antialias=False)


def resize_align_corners(x: Float[Array, "*b h w"], size: tuple[int, int]) -> Float[Array, "*b h2 w2"]:
    """Resizes maps so that the centres of the corner cells meet (`align_corners=True`).

    Args:
        x: maps without channels, at least 2 cells a side.
        size: rows and columns wanted, at least 2 each.
    """
    rows, columns = (_corner_weights(old, new) for old, new in zip(x.shape[-2:], size, strict=True))
    # Without the precision, accelerators would round the maps to 8 or 11 bits.
    x = jnp.einsum("...hw,hi->...iw", x, rows.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("...iw,wj->...ij", x, columns.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)


def _corner_weights(old: int, new: int) -> Float64[np.ndarray, "{old} {new}"]:
    """Returns the share of each old cell in each new one; positions in float32 would be off by 1e-5 of a cell."""
    position = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(np.arange(old)[:, None] - position))
