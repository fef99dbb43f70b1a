"""Image encoder: the Swin transformer as used for dense prediction (paper section 3.1, Liu et al. 2021).

Differs: none from the released model. Any input size: the patch embedding, every block and every patch
merging pad on the right and at the bottom.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.layers import StochasticDepth, apply_block, layer_norm, small_normal
from unilseg_jax.ops import windows


def _pad_to_multiple(x: Float[Array, "b h w c"], multiple: int) -> Float[Array, "b h2 w2 c"]:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, -x.shape[2] % multiple), (0, 0)))


class WindowAttention(nn.Module):
    """Self-attention inside windows with a learned bias per relative position."""

    heads: int
    window: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], mask: Bool[np.ndarray, "w n n"] | None) -> Float[Array, "b n c"]:
        """Attends within each window.

        Args:
            x: windows of `n` cells; the windows of one map lie together, `w` of them.
            mask: per window, which cells may see each other; None for unshifted windows.
        """
        width = x.shape[-1]
        qkv = nn.Dense(3 * width, dtype=self.dtype, kernel_init=small_normal, name="qkv")(x)
        q, k, v = rearrange(qkv, "b n (t k d) -> t b k n d", t=3, k=self.heads)
        scores = jnp.einsum("bknd,bkmd->bknm", q * (width // self.heads) ** -0.5, k).astype(jnp.float32)
        table = self.param("relative_position_bias_table", small_normal, ((2 * self.window - 1) ** 2, self.heads))
        bias = rearrange(table[windows.relative_position_index(self.window)], "n m k -> k n m")
        if mask is None:
            scores = scores + bias[None]
        else:
            # -100, not minus infinity: as the weights were trained.
            bias = bias[None] + jnp.where(mask, 0.0, -100.0)[:, None]
            scores = (rearrange(scores, "(b w) k n m -> b w k n m", w=mask.shape[0]) + bias[None]).reshape(scores.shape)
        weights = nn.softmax(scores, axis=-1).astype(self.dtype)
        mixed = rearrange(jnp.einsum("bknm,bkmd->bknd", weights, v), "b k n d -> b n (k d)")
        return nn.Dense(width, dtype=self.dtype, kernel_init=small_normal, name="proj")(mixed)


class SwinBlock(nn.Module):
    """Pre-norm window attention, plain or shifted, then an MLP with the exact GELU."""

    heads: int
    window: int
    shifted: bool
    drop_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        """Returns maps of the same shape."""
        height, width, channels = x.shape[1:]
        y = layer_norm("norm1", self.dtype)(x).astype(self.dtype)
        y = _pad_to_multiple(y, self.window)  # after the norm: padded cells are zeros that take part
        padded = y.shape[1:3]
        shift, mask = self.window // 2, None
        if self.shifted:
            y = jnp.roll(y, (-shift, -shift), axis=(1, 2))
            mask = windows.shift_mask(*padded, self.window, shift)
        y = WindowAttention(self.heads, self.window, self.dtype, name="attn")(windows.partition(y, self.window), mask)
        y = windows.join(y, self.window, *padded)
        if self.shifted:
            y = jnp.roll(y, (shift, shift), axis=(1, 2))
        x = x + StochasticDepth(self.drop_rate)(y[:, :height, :width], train=train)
        y = layer_norm("norm2", self.dtype)(x).astype(self.dtype)
        y = nn.Dense(4 * channels, dtype=self.dtype, kernel_init=small_normal, name="mlp_fc1")(y)
        y = nn.gelu(y, approximate=False)
        y = nn.Dense(channels, dtype=self.dtype, kernel_init=small_normal, name="mlp_fc2")(y)
        return x + StochasticDepth(self.drop_rate)(y, train=train)


class PatchMerging(nn.Module):
    """Halves a map and doubles its channels; odd sides are padded."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Joins the cells (0,0), (1,0), (0,1), (1,1) of each 2 x 2 patch, in this order."""
        x = _pad_to_multiple(x, 2)
        x = rearrange(x, "b (h i) (w j) c -> b h w (j i c)", i=2, j=2)
        x = layer_norm("norm", self.dtype)(x).astype(self.dtype)
        return nn.Dense(x.shape[-1] // 2, use_bias=False, dtype=self.dtype, kernel_init=small_normal, name="reduction")(
            x
        )


class Swin(nn.Module):
    """The image encoder."""

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool = False) -> list[Float[Array, "b _h _w _c"]]:
        """Encodes normalised images.

        Args:
            images: normalised RGB; both sides at least `shapes.MIN_SIDE`.
            train: whether stochastic depth is active.

        Returns:
            Maps at stride 4, 8, 16 and 32 with the architecture's `level_widths`, each under its own norm.
        """
        sizes = self.architecture
        x = _pad_to_multiple(images.astype(self.dtype), 4)
        x = nn.Conv(
            sizes.embed_dim,
            (4, 4),
            (4, 4),
            "VALID",
            dtype=self.dtype,
            kernel_init=small_normal,
            name="patch_embed_proj",
        )(x)
        x = layer_norm("patch_embed_norm", self.dtype)(x).astype(self.dtype)
        rates = np.linspace(0.0, sizes.stochastic_depth, sum(sizes.depths)).tolist()
        maps, block = [], 0
        for level, (depth, heads) in enumerate(zip(sizes.depths, sizes.num_heads, strict=True)):
            for index in range(depth):
                swin_block = SwinBlock(
                    heads,
                    sizes.window_size,
                    index % 2 == 1,
                    rates[block],
                    self.dtype,
                    name=f"layers_{level}_blocks_{index}",
                )
                x = apply_block(swin_block, x, recompute=self.remat != "none", train=train)
                block += 1
            # A copy is normed; the next level takes the map before the norm.
            maps.append(layer_norm(f"norm{level}", self.dtype)(x).astype(self.dtype))
            if level < 3:
                x = PatchMerging(self.dtype, name=f"layers_{level}_downsample")(x)
        return maps
