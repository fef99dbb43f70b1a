"""The whole model: images and tokenised phrases in, mask logits out (paper Figure 2).

Differs: see the modules of the boxes; all follow the released model.
"""

import contextlib
import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from unilseg_jax import shapes
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.clip_text import ClipText
from unilseg_jax.models.language_path import LanguagePath
from unilseg_jax.models.layers import apply_block, xavier
from unilseg_jax.models.prefusion import PreFusion
from unilseg_jax.models.swin import Swin
from unilseg_jax.models.vision_path import VisionPath


@flax.struct.dataclass
class Output:
    """What a forward pass yields; `b` images, `p` prompts each.

    Attributes:
        layer_logits: (q, b, p, h/4, w/4) float32, one mask per decoder layer; the last is the prediction.
        features: the intermediate maps and features by name, as the parity fixtures name them.
    """

    layer_logits: Float[Array, "q b p h w"]
    features: dict

    @property
    def mask_logits(self) -> Float[Array, "b p h w"]:
        """The prediction at stride 4."""
        return self.layer_logits[-1]


def _exactly(method: Callable) -> Callable:
    """Makes a method of `UniLSeg` compute float32 products in float32, forward and backward.

    Left to themselves, accelerators round the factors to 8 or 11 bits. What the user has set
    (`JAX_DEFAULT_MATMUL_PRECISION`, such as `tensorfloat32`) counts more.
    """

    @functools.wraps(method)
    def exact(self, *args, **kwargs):
        rounds = self.dtype != jnp.float32 or jax.config.jax_default_matmul_precision is not None
        with contextlib.nullcontext() if rounds else jax.default_matmul_precision("highest"):
            return method(self, *args, **kwargs)

    return exact


class UniLSeg(nn.Module):
    """Segments what phrases name. An image is encoded once for all its prompts.

    Attributes:
        architecture: the sizes and the switches of Table 8.
        dtype: of matrix products and convolutions, whose factors are not rounded further; parameters, norms, softmax
            and logits are float32.
        remat: what the backward pass computes again to save memory, one of `architecture.REMATS`.
        norm_groups: see `layers.BatchNorm`.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    norm_groups: int = 1

    def setup(self):
        """Names the boxes."""
        sizes = self.architecture
        self.image_encoder = Swin(sizes, self.dtype, self.remat)
        self.text_encoder = ClipText(sizes, self.dtype, self.remat)
        if sizes.pre_fusion:
            self.prefusion = PreFusion(sizes.dropout, self.dtype)
        self.vision_path = VisionPath(sizes, self.dtype, self.remat, self.norm_groups)
        if sizes.language_path:
            self.language_path = LanguagePath(sizes, self.dtype, self.remat, self.norm_groups)
        else:
            self.sentence_proj = nn.Dense(sizes.query_width, dtype=self.dtype, kernel_init=xavier)

    @_exactly
    def encode_image(self, images: Float[Array, "b h w 3"], *, train: bool = False) -> list[Float[Array, "b _h _w _c"]]:
        """Returns levels 1 to 4 of normalised images; what every prompt shares."""
        shapes.level_sizes(*images.shape[1:3])
        return self.image_encoder(images, train=train)

    @_exactly
    def encode_text(self, tokens: Int[Array, "b p l"]) -> tuple[Float[Array, "b p l d"], Float[Array, "b p s"]]:
        """Returns `word_features` and `sentence_feature` of tokenised phrases."""
        words, sentence = self.text_encoder(tokens.reshape(-1, tokens.shape[-1]))
        return words.reshape(*tokens.shape, -1), sentence.reshape(*tokens.shape[:2], -1)

    @_exactly
    def decode(
        self,
        maps: list[Float[Array, "b _h _w _c"]],
        tokens: Int[Array, "b p l"],
        *,
        train: bool = False,
    ) -> Output:
        """Segments encoded images by their prompts.

        Args:
            maps: what `encode_image` returned.
            tokens: ids, 0 is padding.
            train: whether dropout and batch statistics are active.
        """
        words, sentence = self.encode_text(tokens)
        return self.decode_features(maps, words, sentence, tokens != 0, train=train)

    @_exactly
    def decode_features(
        self,
        maps: list[Float[Array, "b _h _w _c"]],
        words: Float[Array, "b p l d"],
        sentence: Float[Array, "b p s"],
        is_word: Bool[Array, "b p l"],
        *,
        train: bool = False,
    ) -> Output:
        """Does what `decode` does, for phrases that are encoded already.

        Args:
            maps: what `encode_image` returned.
            words: `word_features`, from `encode_text`.
            sentence: `sentence_feature`, from `encode_text`.
            is_word: false on padding.
            train: whether dropout and batch statistics are active.
        """
        fused = [x[:, None] for x in maps]
        if self.architecture.pre_fusion:
            fused = apply_block(self.prefusion, fused, words, is_word, recompute=self.remat == "full", train=train)
        mask_features, levels = self.vision_path(fused, words, is_word, train=train)
        if self.architecture.language_path:
            queries = self.language_path(fused[3], sentence, train=train)
        else:
            queries = self.sentence_proj(sentence)[None]
        mask_features = jnp.broadcast_to(mask_features, (*is_word.shape[:2], *mask_features.shape[2:]))
        logits = jnp.einsum("qbpm,bphwm->qbphw", queries, mask_features, preferred_element_type=jnp.float32)
        features = {
            "swin": maps,
            "words": words,
            "sentence": sentence,
            "fused": fused,
            "levels": levels,
            "mask_features": mask_features,
            "queries": queries,
        }
        return Output(layer_logits=logits, features=features)

    @_exactly
    def __call__(self, images: Float[Array, "b h w 3"], tokens: Int[Array, "b p l"], *, train: bool = False) -> Output:
        """Segments images by their prompts.

        Args:
            images: normalised RGB, both sides at least `shapes.MIN_SIDE`.
            tokens: ids of `p` phrases per image, 0 is padding.
            train: whether dropout, stochastic depth and batch statistics are active.
        """
        return self.decode(self.encode_image(images, train=train), tokens, train=train)
