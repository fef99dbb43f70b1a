"""Layers shared by the boxes of the model, with PyTorch's defaults, since the weights were trained with them.

Parameters are float32; `dtype` is what matrix products and convolutions compute in. Norms and softmax are
always float32. Arrays carry any leading axes; images and prompts are usually `b p`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

NORM_EPS = 1e-5  # PyTorch's; Flax has 1e-6
BATCH_NORM_DECAY = 0.9  # of the running value; PyTorch calls it momentum 0.1

xavier = nn.initializers.xavier_uniform()
small_normal = nn.initializers.truncated_normal(0.02)


def layer_norm(name: str, dtype: DTypeLike) -> nn.LayerNorm:
    """Returns a layer norm in float32 of arrays of `dtype`.

    The fast variance, of one pass over the array, loses digits that float32 has and, but where the mean is a hundred
    times the spread, shorter types have not.
    """
    fast = jnp.dtype(dtype) != jnp.float32
    return nn.LayerNorm(epsilon=NORM_EPS, dtype=jnp.float32, use_fast_variance=fast, name=name)


def apply_block(block: nn.Module, *arrays: Any, recompute: bool, **options: Any) -> Any:
    """Returns what `block` makes of `arrays`.

    Args:
        block: a submodule of the caller.
        *arrays: arrays, or lists of them.
        recompute: keep only `arrays` for the backward pass and compute there again what lies between.
        **options: what is not an array, such as `train`.
    """
    if not recompute:
        return block(*arrays, **options)
    return nn.remat(lambda block, *arrays: block(*arrays, **options))(block, *arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def relu(x: Float[Array, "*b"], key: Array | None = None, dropout: float = 0.0) -> Float[Array, "*b"]:
    """ReLU, and dropout of what it lets through.

    Its gradient is told by the result, which the layer behind keeps anyway: neither the input nor a mask is kept.

    Args:
        x: any array.
        key: of the dropout; not used without.
        dropout: the rate.
    """
    y = jnp.maximum(x, 0)  # which XLA joins with a matrix product on GPUs; NaN stays
    if dropout:
        y = jnp.where(jax.random.bernoulli(key, 1.0 - dropout, x.shape), y / (1.0 - dropout), 0)
    return y


def _relu_forward(x: Array, key: Array | None, dropout: float) -> tuple[Array, Array]:
    y = relu(x, key, dropout)
    return y, y


def _relu_backward(dropout: float, y: Array, gradient: Array) -> tuple[Array, None]:
    return jnp.where(y <= 0, 0, gradient / (1.0 - dropout)), None


relu.defvjp(_relu_forward, _relu_backward)


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last, in float32, keeping PyTorch's running statistics.

    Differs from Flax's: the running variance is unbiased (n - 1), as in PyTorch. Under `jit` over a sharded
    batch the statistics are those of the global batch.

    Attributes:
        groups: equal parts of the batch, in its order, each of which is normalised by its own statistics; the running
            ones take their mean. With as many as there are devices, each device has its own. 0: the running ones are
            used in training too, and stay.
    """

    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], *, train: bool) -> Float[Array, "*b c"]:
        """Normalises `x` with the batch's statistics (`train`) or the running ones."""
        channels = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        parts = (self.groups,) if train and self.groups > 1 else ()
        flat = x.reshape(*parts, -1, *channels).astype(jnp.float32)
        if train and self.groups:
            count = flat.shape[-2]
            now_mean = flat.mean(axis=-2, keepdims=True)
            if x.dtype == jnp.float32:
                now_var = jnp.square(flat - now_mean).mean(axis=-2, keepdims=True)
            else:  # one pass, see `layer_norm`
                now_var = jnp.maximum(jnp.square(flat).mean(axis=-2, keepdims=True) - jnp.square(now_mean), 0.0)
            if not self.is_initializing():
                keep, unbiased = BATCH_NORM_DECAY, now_var * (count / max(count - 1, 1))
                for running, now in ((mean, now_mean), (var, unbiased)):
                    now = now.mean(axis=0) if parts else now
                    running.value = keep * running.value + (1 - keep) * now[0]
        else:
            now_mean, now_var = mean.value[None], var.value[None]
        scale, bias = (x.reshape(*[1] * (flat.ndim - 1), *channels) for x in (scale, bias))
        return ((flat - now_mean) * (scale * jax.lax.rsqrt(now_var + NORM_EPS)) + bias).reshape(x.shape)


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU; leading axes before `h w c` are merged and restored."""

    features: int
    kernel_size: int = 3
    dtype: DTypeLike = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"], *, train: bool) -> Float[Array, "*b h w c2"]:
        """Returns maps of the same size with `features` channels."""
        flat = x.reshape(-1, *x.shape[-3:])
        if self.kernel_size == 1:
            shape = (1, 1, x.shape[-1], self.features)
            kernel = self.param("kernel", xavier, shape).astype(self.dtype)
            flat = jnp.einsum("bhwc,cd->bhwd", flat.astype(self.dtype), kernel[0, 0])
        else:
            shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
            kernel = self.param("kernel", xavier, shape).astype(self.dtype)
            flat = jax.lax.conv_general_dilated(
                flat.astype(self.dtype), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        flat = relu(BatchNorm(self.norm_groups, name="norm")(flat, train=train).astype(self.dtype))
        return flat.reshape(*x.shape[:-1], self.features)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with separate inputs for queries, keys and values, as `torch.nn.MultiheadAttention`."""

    heads: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "*b n d"],
        key: Float[Array, "*b2 m d"],
        value: Float[Array, "*b2 m d"],
        mask: Bool[Array, "*b3 n2 m"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "*b4 n d"]:
        """Attends; leading axes of size 1 are broadcast, so one image's queries serve all its prompts.

        Args:
            query: what asks.
            key: what is asked.
            value: what is answered; same tokens as `key`.
            mask: true where a query (or all of them: `n2` = 1) may look.
            train: whether dropout on the attention weights is active.
        """
        width = query.shape[-1]

        def project(x, name):
            x = nn.Dense(width, dtype=self.dtype, kernel_init=xavier, name=name)(x)
            return rearrange(x, "... n (k d) -> ... n k d", k=self.heads)

        q, k, v = project(query, "query"), project(key, "key"), project(value, "value")
        scores = jnp.einsum("...nkd,...mkd->...knm", q * (width // self.heads) ** -0.5, k)
        scores = scores.astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask[..., None, :, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        mixed = rearrange(jnp.einsum("...knm,...mkd->...nkd", weights, v), "... n k d -> ... n (k d)")
        return nn.Dense(width, dtype=self.dtype, kernel_init=xavier, name="out")(mixed)


class _Linear(nn.Module):
    """The parameters of a linear layer, for callers that fold it into something else."""

    features: int

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Float[Array, "i o"], Float[Array, " o"]]:
        """Returns kernel and bias for `inputs` input features."""
        kernel = self.param("kernel", xavier, (inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class WordAttention(nn.Module):
    """`MultiHeadAttention` from many cells to few words, with the same parameters and the same result.

    The projections of queries and of the output are folded into the words: a cell meets `heads * l` columns
    instead of `d` twice, which is less arithmetic whenever `heads * l < d`, and no axis is ever moved.
    """

    heads: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        cells: Float[Array, "b _p n d"],
        keys: Float[Array, "b p l d"],
        values: Float[Array, "b p l d"],
        is_word: Bool[Array, "b p l"],
        *,
        train: bool = False,
    ) -> Float[Array, "b p n d"]:
        """Attends from cells to words; a prompts axis of 1 at the cells serves all prompts.

        Args:
            cells: what asks.
            keys: the words with their positions.
            values: the words.
            is_word: false at padding.
            train: whether dropout on the attention weights is active.
        """
        width, length = cells.shape[-1], keys.shape[2]

        def split(x: Array) -> Array:
            return rearrange(x.astype(self.dtype), "... (k d) -> ... k d", k=self.heads)

        (query_kernel, query_bias), (out_kernel, out_bias) = (
            _Linear(width, name=name)(width) for name in ("query", "out")
        )
        k = split(nn.Dense(width, dtype=self.dtype, kernel_init=xavier, name="key")(keys))
        v = split(nn.Dense(width, dtype=self.dtype, kernel_init=xavier, name="value")(values))
        k = k * (width // self.heads) ** -0.5
        asked = rearrange(jnp.einsum("ckd,bplkd->bpckl", split(query_kernel), k), "b p c k l -> b p c (k l)")
        offset = jnp.einsum("kd,bplkd->bpkl", split(query_bias), k)
        offset = jnp.where(is_word[:, :, None], offset.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        scores = _meet(cells.astype(self.dtype), asked)
        scores = rearrange(scores, "b p n (k l) -> b p n k l", l=length).astype(jnp.float32) + offset[:, :, None]
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        told = jnp.einsum(
            "bplkd,kdc->bpklc", v, rearrange(out_kernel.astype(self.dtype), "(k d) c -> k d c", k=self.heads)
        )
        mixed = _meet(rearrange(weights, "b p n k l -> b p n (k l)"), rearrange(told, "b p k l c -> b p (k l) c"))
        return mixed + out_bias.astype(self.dtype)[None, None, None]


def attend_to_words(
    cells: Float[Array, "b _p n d"],
    keys: Float[Array, "b p l d"],
    values: Float[Array, "b p l d"],
    is_word: Bool[Array, "b p l"],
    *,
    heads: int,
    dropout: float,
    dtype: DTypeLike,
    train: bool,
    name: str,
) -> Float[Array, "b p n d"]:
    """Attends from cells to words in the cheaper of two forms with the same parameters and result.

    To be called inside a module's `nn.compact` method, which will own the layer `name`. Folding the
    projections into the words pays when there are clearly more cells than words. See `WordAttention`.
    """
    if cells.shape[2] > 2 * keys.shape[2]:
        return WordAttention(heads, dropout, dtype, name=name)(cells, keys, values, is_word, train=train)
    attention = MultiHeadAttention(heads, dropout, dtype, name=name)
    return attention(cells, keys, values, is_word[:, :, None, :], train=train)


def _meet(x: Float[Array, "b _p n i"], y: Float[Array, "b p i j"]) -> Float[Array, "b p n j"]:
    """Matrix product per prompt; what all prompts share is not repeated."""
    if x.shape[1] == y.shape[1]:
        return jnp.einsum("bpni,bpij->bpnj", x, y)
    return jnp.einsum("bni,bpij->bpnj", x[:, 0], y)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU and dropout between them."""

    hidden: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b n d"], *, train: bool = False) -> Float[Array, "*b n d"]:
        """Returns tokens of the same width."""
        y = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=xavier, name="linear1")(x)
        y = relu(y, self.make_rng("dropout"), self.dropout) if train and self.dropout else relu(y)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=xavier, name="linear2")(y)


class AddAndNorm(nn.Module):
    """Post-norm residual: `LN(x + dropout(branch))`."""

    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n d"], branch: Float[Array, "*b n d"], *, train: bool = False
    ) -> Float[Array, "*b n d"]:
        """Adds the branch, in the type of `x`, then normalises in float32."""
        branch = nn.Dropout(self.dropout, deterministic=not train)(branch)
        return layer_norm("norm", self.dtype)(x + branch.astype(x.dtype)).astype(self.dtype)


class StochasticDepth(nn.Module):
    """Drops a residual branch of whole samples and scales the kept ones up (Huang et al. 2016)."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool) -> Float[Array, "b ..."]:
        """Returns `x`, in training with the rows of dropped samples set to zero."""
        if not train or self.rate == 0.0:
            return x
        return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)), deterministic=False)(x)
