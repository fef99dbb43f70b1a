"""Bilinear resizing in PyTorch's two conventions, without anti-aliasing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    axes = (x.ndim - 2, x.ndim - 1)
    scale = jnp.array([(new - 1) / (old - 1) for new, old in zip(size, x.shape[-2:], strict=True)])
    shape = (*x.shape[:-2], *size)
    # Output o is read at (o + 0.5 - t) / s - 0.5; t is chosen so that 0 is read at 0.
    return jax.image.scale_and_translate(x, shape, axes, scale, 0.5 * (1 - scale), "linear", antialias=False)
