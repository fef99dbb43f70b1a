"""Text encoder: the text tower of CLIP ViT-B/16 (paper section 3.1, Radford et al. 2021).

Differs: none from the released model. Words are the final norm's output, not projected; the sentence is
the end-of-text word times the text projection.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from unilseg_jax.models.architecture import TEXT_HEAD_WIDTH, Architecture
from unilseg_jax.models.layers import MultiHeadAttention, apply_block, layer_norm


def quick_gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """CLIP's approximation of GELU: `x * sigmoid(1.702 x)`."""
    return x * jax.nn.sigmoid(1.702 * x)


class TextBlock(nn.Module):
    """Pre-norm causal self-attention, then an MLP."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Returns words of the same width; a word sees itself and those before it."""
        length, width = x.shape[1:]
        causal = jnp.tril(jnp.ones((1, length, length), bool))
        y = layer_norm("ln_1", self.dtype)(x).astype(self.dtype)
        x = x + MultiHeadAttention(width // TEXT_HEAD_WIDTH, dtype=self.dtype, name="attn")(y, y, y, causal)
        y = layer_norm("ln_2", self.dtype)(x).astype(self.dtype)
        y = quick_gelu(nn.Dense(4 * width, dtype=self.dtype, name="mlp_c_fc")(y))
        return x + nn.Dense(width, dtype=self.dtype, name="mlp_c_proj")(y)


class ClipText(nn.Module):
    """The text encoder."""

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> tuple[Float[Array, "b l d"], Float[Array, "b s"]]:
        """Encodes tokenised phrases.

        Args:
            tokens: ids with start and end of text, padded with 0; at most `context_length` of them.

        Returns:
            `word_features` (b, l, text_width), padded positions included, and `sentence_feature`
            (b, sentence_width).
        """
        sizes, width = self.architecture, self.architecture.text_width
        embedding = nn.Embed(
            sizes.vocab_size, width, embedding_init=nn.initializers.normal(0.02), name="token_embedding"
        )
        positions = self.param("positional_embedding", nn.initializers.normal(0.01), (sizes.context_length, width))
        x = (embedding(tokens) + positions[None, : tokens.shape[1]]).astype(self.dtype)
        for index in range(sizes.text_layers):
            block = TextBlock(self.dtype, name=f"resblocks_{index}")
            x = apply_block(block, x, recompute=self.remat != "none")
        words = layer_norm("ln_final", self.dtype)(x).astype(self.dtype)
        projection = self.param("text_projection", nn.initializers.normal(width**-0.5), (width, sizes.sentence_width))
        # End of text has the greatest id of the vocabulary.
        ends = jnp.take_along_axis(words, tokens.argmax(axis=-1)[:, None, None], axis=1)[:, 0]
        return words, ends @ projection.astype(self.dtype)
