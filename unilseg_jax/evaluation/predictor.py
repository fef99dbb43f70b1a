"""Many phrases on one picture: the picture encoded once, the phrases in buckets, a label map fused while they pass.

Differs: the released demo does one phrase per pass. Probabilities are clipped to 0 to 1, since bicubic warping
overshoots.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.label_map import LabelMap
from unilseg_jax.evaluation.text_features import TextCache, TextFeatures
from unilseg_jax.input_pipeline.images import ImageSource, read_image
from unilseg_jax.input_pipeline.phrases import check_phrase
from unilseg_jax.interop.pretrained import Pretrained, check_input_size
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.ops import geometry
from unilseg_jax.ops.resize import resize_align_corners
from unilseg_jax.text.tokenizer import END, tokenize

DTYPES = ("float32", "bfloat16")

# At 480 px a prompt takes about 0.5 GB; on a CPU two to eight at once take 12 % to 40 % more time than one by one.
_BUCKETS = {"cpu": (1,)}
_BUCKETS_ELSEWHERE = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """A picture behind the image encoder, ready for any number of phrases.

    Attributes:
        maps: the encoder's levels, for one picture.
        original_size: height and width of the picture, in pixels.
        resize: a key of `ops.geometry.RESIZES`.
    """

    maps: list[Float[Array, "1 _h _w _c"]]
    original_size: tuple[int, int]
    resize: str


def default_buckets() -> tuple[int, ...]:
    """Returns the numbers of phrases that are decoded together on this machine's kind of device."""
    return _BUCKETS.get(jax.default_backend(), _BUCKETS_ELSEWHERE)


def split(count: int, buckets: Sequence[int]) -> list[int]:
    """Returns the sizes of the buckets that phrases go into: the largest while it is filled, then what holds the rest.

    Args:
        count: of phrases, at least 1.
        buckets: sizes that may be used, ascending.
    """
    whole, rest = divmod(count, buckets[-1])
    return [buckets[-1]] * whole + ([min(size for size in buckets if size >= rest)] if rest else [])


class Predictor:
    """A trained model on the device, for few pictures and many phrases each.

    Everything is compiled per input size and bucket: neither the number of phrases nor the size of a picture compiles
    anything more. What comes out for a picture and a list of phrases is the same to the bit whatever was asked
    before (on an accelerator as far as its compiler chooses the same kernels: XLA's `--xla_gpu_deterministic_ops`).
    One device is used, JAX's default one; further ones are for further processes.

    Args:
        pretrained: the weights and sizes.
        input_size: side of the square network input in pixels; None takes the one of the training.
        dtype: of matrix products and convolutions, one of `DTYPES`.
        buckets: numbers of phrases that are decoded together, each at least 1; None chooses for the device.
        cached_phrases: how many phrases' features are kept, at least 0; see `TextCache`.

    Raises:
        UserError: the input size, the dtype, a bucket or the number of kept phrases is not possible.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        input_size: int | None = None,
        dtype: str = "float32",
        buckets: Sequence[int] | None = None,
        cached_phrases: int = 1024,
    ):
        size = pretrained.input_size if input_size is None else input_size
        check_input_size(size, "input_size")
        if dtype not in DTYPES:
            raise UserError(f"dtype = {dtype!r}; wanted one of {', '.join(DTYPES)}")
        if buckets is not None and (not len(buckets) or min(buckets) < 1):
            raise UserError(f"buckets = {buckets}; numbers of at least 1 are wanted")
        if cached_phrases < 0:
            raise UserError(f"cached_phrases = {cached_phrases}; at least 0 is wanted")
        self.architecture = pretrained.architecture
        self.input_size = size
        self.buckets = tuple(sorted(set(default_buckets() if buckets is None else buckets)))
        self.model = UniLSeg(pretrained.architecture, jnp.dtype(dtype))
        self.variables = jax.device_put(pretrained.variables)
        self.cache = TextCache(self.model, self.variables, cached_phrases)

    def tokens(self, phrases: Sequence[str]) -> Int[np.ndarray, "p l"]:
        """Returns the ids of phrases as this model takes them.

        Args:
            phrases: raw texts, at least one; too long ones are cut with a `PhraseCutWarning`.

        Raises:
            UserError: there is no phrase, one has no words, or the model has another vocabulary.
        """
        if isinstance(phrases, str) or not len(phrases):
            raise UserError(f"phrases = {phrases!r}; a list of at least one text is wanted")
        if self.architecture.vocab_size <= END:
            raise UserError(
                f"the model has a vocabulary of {self.architecture.vocab_size} tokens, CLIP's has {END + 1}; "
                "call logits() of a Segmenter with its own tokens"
            )
        for phrase in phrases:
            check_phrase(phrase)
        return tokenize(phrases, self.architecture.word_len)

    def text(self, phrases: Sequence[str]) -> TextFeatures:
        """Returns phrases behind the text encoder; those that were asked for lately are not computed again.

        Args:
            phrases: raw texts, at least one; too long ones are cut with a `PhraseCutWarning`.

        Raises:
            UserError: as `tokens` does.
        """
        return self.cache.features(self.tokens(phrases))

    def encode(self, image: ImageSource, resize: str) -> EncodedImage:
        """Does the part that does not depend on the phrases.

        Args:
            image: a path, a PIL image, or uint8 RGB of shape (h, w, 3).
            resize: a key of `ops.geometry.RESIZES`.

        Raises:
            UserError: the picture cannot be read, or `resize` is not known.
        """
        if resize not in geometry.RESIZES:
            raise UserError(f"resize = {resize!r}; wanted one of {', '.join(geometry.RESIZES)}")
        image = read_image(image)
        square = geometry.normalise(geometry.RESIZES[resize].to_square(image, self.input_size))
        maps = encode_image(self.model, self.variables, square[None])
        return EncodedImage(maps=maps, original_size=image.shape[:2], resize=resize)

    def logits(self, encoded: EncodedImage, phrases: Sequence[str] | TextFeatures) -> Float32[np.ndarray, "p h w"]:
        """Returns mask logits over the square at stride 4 (sides rounded up); the model's bare output.

        Args:
            encoded: what `encode` returned.
            phrases: raw texts, or what `text` returned for them.

        Raises:
            UserError: as `tokens` does.
        """
        return _joined([part for part, _ in self._decoded(encoded, phrases)], len(phrases))

    def probabilities(
        self, encoded: EncodedImage, phrases: Sequence[str] | TextFeatures
    ) -> Float32[np.ndarray, "p h w"]:
        """Returns probabilities from 0 to 1 at the picture's own size, one map per phrase.

        Args:
            encoded: what `encode` returned.
            phrases: raw texts, or what `text` returned for them.

        Raises:
            UserError: as `tokens` does.
        """
        parts = [_upsample(part, self.input_size) for part, _ in self._decoded(encoded, phrases)]
        square = _joined(parts, len(phrases))
        probs = geometry.RESIZES[encoded.resize].from_square(square, encoded.original_size)
        return np.clip(probs, 0, 1, out=probs)

    def label_map(
        self, encoded: EncodedImage, phrases: Sequence[str] | TextFeatures
    ) -> tuple[Int32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Returns which phrase fits each pixel best, and its probability there.

        Logits at stride 4 are taken to the picture's own size bilinearly: for "stretch" with half-pixel centres; for
        "letterbox" where `ops.geometry.unletterbox` samples, without the bicubic detour over the square. The
        greatest wins, the first one among equals. No array holds all phrases at the picture's size.

        Args:
            encoded: what `encode` returned.
            phrases: raw texts, or what `text` returned for them.

        Returns:
            Numbers of phrases, from 0, and probabilities from 0 to 1.

        Raises:
            UserError: as `tokens` does.
        """
        best = LabelMap(encoded.original_size, encoded.resize, self.input_size)
        for logits, count in self._decoded(encoded, phrases):
            best.update(logits[0], count)
        return best.result()

    def _decoded(
        self, encoded: EncodedImage, phrases: Sequence[str] | TextFeatures
    ) -> Iterator[tuple[Float[Array, "1 _p h w"], int]]:
        """Yields mask logits of one bucket after another, and how many of them are of phrases."""
        text = phrases if isinstance(phrases, TextFeatures) else self.text(phrases)
        start = 0
        for size in split(len(text), self.buckets):
            # Surplus places repeat the last phrase.
            part = text.pick(np.minimum(np.arange(start, start + size), len(text) - 1))
            logits = decode_features(
                self.model, self.variables, encoded.maps, part.words[None], part.sentence[None], part.is_word[None]
            )
            yield logits, min(size, len(text) - start)
            start += size


def _joined(parts: list[Float[Array, "1 _p h w"]], count: int) -> Float[np.ndarray, "{count} h w"]:
    """Returns the maps of all phrases; joined by NumPy, since each number of phrases would be compiled."""
    return np.concatenate([np.asarray(part)[0] for part in parts])[:count]


# The model is a static argument: predictors of one architecture share what was compiled.
@functools.partial(jax.jit, static_argnums=0)
def encode_image(model: UniLSeg, variables: dict, images: Float[Array, "b h w 3"]) -> list[Float[Array, "b _h _w _c"]]:
    """Compiles `UniLSeg.encode_image`."""
    return model.apply(variables, images, method="encode_image")


@functools.partial(jax.jit, static_argnums=0)
def decode_features(
    model: UniLSeg,
    variables: dict,
    maps: list[Float[Array, "b _h _w _c"]],
    words: Float[Array, "b p l d"],
    sentence: Float[Array, "b p s"],
    is_word: Bool[Array, "b p l"],
) -> Float[Array, "b p h w"]:
    """Compiles `UniLSeg.decode_features`; returns mask logits at stride 4."""
    return model.apply(variables, maps, words, sentence, is_word, method="decode_features").mask_logits


@functools.partial(jax.jit, static_argnums=1)
def _upsample(logits: Float[Array, "b p h w"], size: int) -> Float[Array, "b p {size} {size}"]:
    return jax.nn.sigmoid(resize_align_corners(logits, (size, size)))
