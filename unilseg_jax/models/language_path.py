"""Language path: the sentence becomes a query that looks at the image (paper section 3.4).

Differs: six decoder layers of self-attention, cross-attention and feed-forward, with the sentence as the
position of a query whose content starts at zero, as in the released model.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from unilseg_jax.models.architecture import HEADS, Architecture
from unilseg_jax.models.layers import (
    AddAndNorm,
    BatchNorm,
    ConvNormRelu,
    FeedForward,
    MultiHeadAttention,
    apply_block,
    layer_norm,
    relu,
    xavier,
)
from unilseg_jax.ops.positions import sine_positions_2d


class QueryLayer(nn.Module):
    """One post-norm decoder layer."""

    ffn_width: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        content: Float[Array, "b p 1 m"],
        sentence: Float[Array, "b p 1 m"],
        memory: Float[Array, "b _p n m"],
        position: Float[Array, "1 1 n m"],
        *,
        train: bool,
    ) -> Float[Array, "b p 1 m"]:
        """Returns the query's new content."""
        attention = {"heads": HEADS, "dropout": self.dropout, "dtype": self.dtype}
        asked = content + sentence
        heard = MultiHeadAttention(**attention, name="self_attn")(asked, asked, content, train=train)
        content = AddAndNorm(self.dropout, self.dtype, name="residual1")(content, heard, train=train)
        heard = MultiHeadAttention(**attention, name="cross_attn")(
            content + sentence, memory + position, memory, train=train
        )
        content = AddAndNorm(self.dropout, self.dtype, name="residual2")(content, heard, train=train)
        heard = FeedForward(self.ffn_width, self.dropout, self.dtype, name="ffn")(content, train=train)
        return AddAndNorm(self.dropout, self.dtype, name="residual3")(content, heard, train=train)


class LanguagePath(nn.Module):
    """The query decoder."""

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self,
        coarsest: Float[Array, "b _p h w c"],
        sentence: Float[Array, "b p s"],
        *,
        train: bool = False,
    ) -> Float[Array, "q b p m"]:
        """Turns each sentence into a query of the mask features.

        Args:
            coarsest: level 4 after Pre-Fusion.
            sentence: `sentence_feature`.
            train: whether dropout and batch statistics are active.

        Returns:
            The query after every decoder layer, normed; the last is the prediction's.
        """
        sizes, dtype = self.architecture, self.dtype
        projection = ConvNormRelu(sizes.query_width, 3, dtype, self.norm_groups, name="visual_proj")
        memory = apply_block(projection, coarsest, recompute=self.remat == "full", train=train)
        height, width = memory.shape[2:4]
        memory = memory.reshape(*memory.shape[:2], height * width, sizes.query_width)
        position = jnp.asarray(sine_positions_2d(height, width, sizes.query_width), dtype)[None, None]
        query = nn.Dense(sizes.query_width, use_bias=False, dtype=dtype, kernel_init=xavier, name="text_proj")(sentence)
        query = BatchNorm(self.norm_groups, name="text_proj_norm")(query, train=train).astype(dtype)
        query = relu(query)[:, :, None]
        content, final_norm, queries = jnp.zeros_like(query), layer_norm("norm", dtype), []
        for index in range(sizes.query_layers):
            layer = QueryLayer(sizes.ffn_width, sizes.dropout, dtype, name=f"layers_{index}")
            content = apply_block(layer, content, query, memory, position, recompute=self.remat != "none", train=train)
            queries.append(final_norm(content)[:, :, 0].astype(dtype))
        return jnp.stack(queries)
