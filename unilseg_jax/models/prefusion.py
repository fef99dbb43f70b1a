"""Pre-Fusion: words meet every level of the image encoder before decoding (paper section 3.2, eq. 1).

Differs: all four levels (paper: levels 2 to 4), and the attended words are added to the map (paper: they
replace it), as in the released model.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from unilseg_jax.models.architecture import HEADS
from unilseg_jax.models.layers import attend_to_words, xavier
from unilseg_jax.ops.positions import sine_positions_2d


class PreFusion(nn.Module):
    """Cross-attention from each level's cells to the words."""

    dropout: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        maps: list[Float[Array, "b 1 _h _w _c"]],
        words: Float[Array, "b p l d"],
        is_word: Bool[Array, "b p l"],
        *,
        train: bool = False,
    ) -> list[Float[Array, "b p _h _w _c"]]:
        """Fuses each level with the words of each prompt; the queries are computed once per image.

        Args:
            maps: levels 1 to 4 of the image encoder.
            words: `word_features` of the prompts.
            is_word: false at padding.
            train: whether dropout is active.
        """
        fused = []
        for level, x in enumerate(maps, start=1):
            height, width, channels = x.shape[2:]
            cells = x.reshape(*x.shape[:2], height * width, channels)
            keys = nn.Dense(channels, dtype=self.dtype, kernel_init=xavier, name=f"word_proj_{level}")(words)
            position = sine_positions_2d(height, width, channels).astype(self.dtype)
            heard = attend_to_words(
                cells + position[None, None],
                keys,
                keys,
                is_word,
                heads=HEADS,
                dropout=self.dropout,
                dtype=self.dtype,
                train=train,
                name=f"attention_{level}",
            )
            fused.append(x + heard.reshape(*heard.shape[:2], height, width, channels))
        return fused
