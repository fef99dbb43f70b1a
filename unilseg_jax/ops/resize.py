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
    for axis, (old, new) in enumerate(zip(x.shape[-3:-1], size, strict=True)):
        if new != old:
            position = (np.arange(new) + 0.5) * old / new - 0.5
            share = jnp.asarray(_shares(old, position.clip(0, old - 1)), x.dtype)
            lead = x.shape[: x.ndim - 3 + axis]
            x = _matmul_each(share, x.reshape(*lead, old, -1)).reshape(*lead, new, *x.shape[len(lead) + 1 :])
    return x


def resize_align_corners(x: Float[Array, "*b h w"], size: tuple[int, int]) -> Float[Array, "*b h2 w2"]:
    """Resizes maps so that the centres of the corner cells meet (`align_corners=True`).

    Args:
        x: maps without channels, at least 2 cells a side.
        size: rows and columns wanted, at least 2 each.
    """
    rows, columns = (_shares(old, np.linspace(0, old - 1, new)).T for old, new in zip(x.shape[-2:], size, strict=True))
    # Without the precision, accelerators would round the maps to 8 or 11 bits.
    x = jnp.einsum("...hw,hi->...iw", x, rows.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("...iw,wj->...ij", x, columns.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)


def _matmul_each(share: Float[Array, "n m"], x: Float[Array, "*b m c"]) -> Float[Array, "*b n c"]:
    """Returns the product with each matrix of `x`.

    As a batched product, which no axis is moved for; `jax.image.resize` copies maps of 512 channels on GPUs.
    """
    flat = x.reshape(-1, *x.shape[-2:])
    each = jnp.broadcast_to(share[None], (flat.shape[0], *share.shape))
    # Without the precision, accelerators would round the maps to 8 or 11 bits.
    found = jnp.einsum("bnm,bmc->bnc", each, flat, precision=jax.lax.Precision.HIGHEST)
    return found.reshape(*x.shape[:-2], *found.shape[-2:])


def _shares(old: int, position: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n {old}"]:
    """Returns the share of each old cell in a new one at `position`; in float32 that would be off by 1e-5 of a cell."""
    return np.maximum(0, 1 - np.abs(np.arange(old) - position[:, None]))
