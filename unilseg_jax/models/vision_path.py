"""Vision path: a feature pyramid with multi-modal transformer blocks (paper section 3.3, eqs. 2 to 5).

Differs: self-attention runs on shrunk tokens at the fine levels, and the residual is added before the norm,
as in the released model.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from unilseg_jax import shapes
from unilseg_jax.models.architecture import HEADS, Architecture
from unilseg_jax.models.layers import (
    AddAndNorm,
    ConvNormRelu,
    FeedForward,
    MultiHeadAttention,
    apply_block,
    attend_to_words,
)
from unilseg_jax.ops.positions import sine_positions_1d, sine_positions_2d
from unilseg_jax.ops.resize import resize_bilinear


class MultiModalBlock(nn.Module):
    """Self-attention of cells and words together, cross-attention to the words, feed-forward; post-norm."""

    level: int
    ffn_width: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b p h w d"],
        words: Float[Array, "b p l d"],
        is_word: Bool[Array, "b p l"],
        *,
        train: bool,
    ) -> Float[Array, "b p h w d"]:
        """Returns the lateral map of one level, informed by the words and by far cells."""
        height, width, channels = x.shape[2:]
        lead = x.shape[:2]
        size = shapes.shrunk_size((height, width), self.level)
        position = jnp.asarray(sine_positions_2d(height, width, channels), self.dtype)[None, None]
        word_position = jnp.asarray(sine_positions_1d(words.shape[2], channels), self.dtype)[None, None]
        cells = x.reshape(*lead, height * width, channels)

        def shrunk(tokens):
            grid = tokens.reshape(-1, height, width, channels)
            return resize_bilinear(grid, size).reshape(*tokens.shape[:2], size[0] * size[1], channels)

        # Resizing is linear, so that cells and positions go apart and the cells once. Only the cells ask; what the
        # words would learn here is thrown away.
        small = shrunk(cells)
        asking = small + shrunk(position)
        keys, values = (jnp.concatenate([tokens, words], axis=2) for tokens in (asking, small))
        everywhere = jnp.ones((*lead, size[0] * size[1]), bool)
        may_look = jnp.concatenate([everywhere, is_word], axis=-1)[:, :, None, :]
        heard = MultiHeadAttention(HEADS, self.dropout, self.dtype, name="self_attn")(
            asking, keys, values, may_look, train=train
        )
        heard = resize_bilinear(heard.reshape(-1, *size, channels), (height, width))
        cells = AddAndNorm(self.dropout, self.dtype, name="residual1")(cells, heard.reshape(cells.shape), train=train)
        heard = attend_to_words(
            cells + position,
            words + word_position,
            words,
            is_word,
            heads=HEADS,
            dropout=self.dropout,
            dtype=self.dtype,
            train=train,
            name="cross_attn",
        )
        cells = AddAndNorm(self.dropout, self.dtype, name="residual2")(cells, heard, train=train)
        heard = FeedForward(self.ffn_width, self.dropout, self.dtype, name="ffn")(cells, train=train)
        cells = AddAndNorm(self.dropout, self.dtype, name="residual3")(cells, heard, train=train)
        return cells.reshape(x.shape)


class VisionPath(nn.Module):
    """The pixel decoder."""

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self,
        maps: list[Float[Array, "b _p _h _w _c"]],
        words: Float[Array, "b p l d"],
        is_word: Bool[Array, "b p l"],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "b _p h w m"], list[Float[Array, "b _p _h _w d"]]]:
        """Decodes from the coarsest level to the finest.

        Args:
            maps: levels 1 to 4; a prompts axis of 1 where nothing before depended on the phrase.
            words: `word_features`.
            is_word: false at padding.
            train: whether dropout and batch statistics are active.

        Returns:
            `mask_features` at stride 4, and the outputs of levels 1 to 4.
        """
        sizes, dtype = self.architecture, self.dtype
        outputs, coarser = {}, None

        def convolve(x: Array, width: int, kernel_size: int, name: str) -> Array:
            block = ConvNormRelu(width, kernel_size, dtype, self.norm_groups, name=name)
            return apply_block(block, x, recompute=self.remat == "full", train=train)

        for level in (4, 3, 2, 1):
            x = convolve(maps[level - 1], sizes.text_width, 1, f"adapter_{level}")
            if sizes.vision_path:
                x = jnp.broadcast_to(x, (*words.shape[:2], *x.shape[2:]))
                block = MultiModalBlock(level, sizes.ffn_width, sizes.dropout, dtype, name=f"block_{level}")
                x = apply_block(block, x, words, is_word, recompute=self.remat != "none", train=train)
            if coarser is not None:
                flat = coarser.reshape(-1, *coarser.shape[2:])
                x = x + resize_bilinear(flat, x.shape[2:4]).reshape(x.shape)
            coarser = convolve(x, sizes.text_width, 3, f"output_{level}")
            outputs[level] = coarser
        mask_features = convolve(coarser, sizes.query_width, 3, "mask_features")
        return mask_features, [outputs[level] for level in (1, 2, 3, 4)]
