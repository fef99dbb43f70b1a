"""The user's API: a trained model that segments what phrases name.

Differs: the released demo letterboxes and cuts at 0.35, which is the default; the paper resizes to the square
and cuts at 0.5 (`resize="stretch"`). Probabilities are clipped to 0 to 1, since bicubic warping overshoots.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from unilseg_jax import shapes
from unilseg_jax.errors import UserError, checked_file
from unilseg_jax.input_pipeline.images import ImageSource, read_image
from unilseg_jax.input_pipeline.phrases import check_phrase
from unilseg_jax.interop.pretrained import Pretrained, check_input_size
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.ops import geometry
from unilseg_jax.ops.resize import resize_align_corners
from unilseg_jax.text.tokenizer import END, tokenize

DTYPES = ("float32", "bfloat16")

# At 480 px a prompt takes about 0.5 GB; on a CPU more at once gain no time.
_PROMPTS_AT_ONCE = {"cpu": 1}
_PROMPTS_AT_ONCE_ELSEWHERE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a picture's phrases name.

    Attributes:
        probs: 0 to 1, at the picture's own size (upright), one map per phrase.
        masks: `probs` above the threshold.
        phrases: as they were given.
        threshold: the cut.
    """

    probs: Float32[np.ndarray, "p h w"]
    masks: Bool[np.ndarray, "p h w"]
    phrases: tuple[str, ...]
    threshold: float


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


class Segmenter:
    """A trained model, on the device.

    A first call compiles; later calls with the same input size and about as many phrases do not.

    Args:
        pretrained: the weights and sizes.
        input_size: side of the square network input in pixels; None takes the one of the training.
        dtype: of matrix products and convolutions, one of `DTYPES`.
        prompts_at_once: how many prompts per image are decoded together; None chooses for the device.

    Raises:
        UserError: the input size or the dtype is not possible.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        input_size: int | None = None,
        dtype: str = "float32",
        prompts_at_once: int | None = None,
    ):
        size = pretrained.input_size if input_size is None else input_size
        check_input_size(size, "input_size")
        if dtype not in DTYPES:
            raise UserError(f"dtype = {dtype!r}; wanted one of {', '.join(DTYPES)}")
        if prompts_at_once is not None and prompts_at_once < 1:
            raise UserError(f"prompts_at_once = {prompts_at_once}; at least 1 is wanted")
        self.architecture = pretrained.architecture
        self.input_size = size
        default = _PROMPTS_AT_ONCE.get(jax.default_backend(), _PROMPTS_AT_ONCE_ELSEWHERE)
        self._prompts_at_once = prompts_at_once or default
        self._model = UniLSeg(pretrained.architecture, jnp.dtype(dtype))
        self._variables = jax.device_put(pretrained.variables)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike,
        *,
        input_size: int | None = None,
        dtype: str = "float32",
        prompts_at_once: int | None = None,
    ) -> "Segmenter":
        """Loads a model.

        Args:
            path: a file of the released layout (.pth, .pt, .safetensors), or the directory of a training run
                or of a converted model.
            input_size: side of the square network input in pixels; None takes the one of the training.
            dtype: of matrix products and convolutions: "float32" or "bfloat16".
            prompts_at_once: how many prompts are decoded together, fewer in less memory; None chooses.

        Raises:
            UserError: there is no such path, or it holds no such model.
        """
        if not os.fspath(path):
            raise UserError("the path of the checkpoint is empty; name a file or folder")
        # Imported here: Orbax is slow to import and not needed to read a file.
        if Path(path).is_dir():
            from unilseg_jax.training.model_directory import load_pretrained

            pretrained = load_pretrained(path, with_carried=False)
        else:
            from unilseg_jax.interop.torch_import import load_released

            pretrained = load_released(checked_file(path, "checkpoint"))
        return cls(pretrained, input_size=input_size, dtype=dtype, prompts_at_once=prompts_at_once)

    def predict(
        self,
        image: ImageSource,
        phrases: Sequence[str],
        *,
        resize: str = "letterbox",
        threshold: float | None = None,
    ) -> Prediction:
        """Segments a picture by phrases, each on its own.

        Args:
            image: a path, a PIL image, or uint8 RGB of shape (h, w, 3).
            phrases: raw texts, at least one; too long ones are cut with a `PhraseCutWarning`.
            resize: "letterbox" as released, or "stretch" as in the paper.
            threshold: the cut between 0 and 1; None takes the one that goes with `resize`.

        Raises:
            UserError: the picture cannot be read, a phrase has no words, or an option is not possible.
        """
        # All that can be wrong comes before the long part.
        _check_threshold(threshold)
        tokens = self.tokens(phrases)
        return self._segment(self.encode(image, resize=resize), phrases, tokens, threshold)

    def encode(self, image: ImageSource, *, resize: str = "letterbox") -> EncodedImage:
        """Does the part of `predict` that does not depend on the phrases; `segment` does the rest.

        Args:
            image: a path, a PIL image, or uint8 RGB of shape (h, w, 3).
            resize: "letterbox" as released, or "stretch" as in the paper.

        Raises:
            UserError: the picture cannot be read, or `resize` is not known.
        """
        if resize not in geometry.RESIZES:
            raise UserError(f"resize = {resize!r}; wanted one of {', '.join(geometry.RESIZES)}")
        image = read_image(image)
        square = geometry.normalise(geometry.RESIZES[resize].to_square(image, self.input_size))
        maps = _encode(self._model, self._variables, square[None])
        return EncodedImage(maps=maps, original_size=image.shape[:2], resize=resize)

    def segment(self, encoded: EncodedImage, phrases: Sequence[str], *, threshold: float | None = None) -> Prediction:
        """Segments an encoded picture by phrases.

        Args:
            encoded: what `encode` returned.
            phrases: raw texts, at least one.
            threshold: the cut between 0 and 1; None takes the one that goes with the way of resizing.

        Raises:
            UserError: a phrase has no words, or the threshold is not possible.
        """
        _check_threshold(threshold)
        return self._segment(encoded, phrases, self.tokens(phrases), threshold)

    def _segment(
        self,
        encoded: EncodedImage,
        phrases: Sequence[str],
        tokens: Int[np.ndarray, "p l"],
        threshold: float | None,
    ) -> Prediction:
        """Does what `segment` does, for arguments that were checked."""
        resize = geometry.RESIZES[encoded.resize]
        threshold = resize.threshold if threshold is None else threshold
        parts = [_upsample(part, self.input_size) for part in self._decoded(encoded.maps, tokens[None])]
        # Joined by NumPy, since the number of phrases is free and each number would be compiled.
        square = np.concatenate([np.asarray(part)[0] for part in parts])[: len(tokens)]
        probs = resize.from_square(square, encoded.original_size)
        probs = np.clip(probs, 0, 1, out=probs)
        return Prediction(probs=probs, masks=probs > threshold, phrases=tuple(phrases), threshold=float(threshold))

    def tokens(self, phrases: Sequence[str]) -> Int[np.ndarray, "p l"]:
        """Returns the ids of phrases as this model takes them.

        Raises:
            UserError: there is no phrase, one has no words, or the model has another vocabulary.
        """
        if isinstance(phrases, str) or not len(phrases):
            raise UserError(f"phrases = {phrases!r}; a list of at least one text is wanted")
        if self.architecture.vocab_size <= END:
            raise UserError(
                f"the model has a vocabulary of {self.architecture.vocab_size} tokens, CLIP's has {END + 1}; "
                "call logits() with its own tokens"
            )
        for phrase in phrases:
            check_phrase(phrase)
        return tokenize(phrases, self.architecture.word_len)

    def logits(
        self, images: np.ndarray | Array, tokens: np.ndarray | Array
    ) -> Float[Array, "b h w"] | Float[Array, "b p h w"]:
        """Returns mask logits at stride 4 (sides rounded up) for a batch; the model's bare output.

        Args:
            images: normalised (`ops.geometry.normalise`) float of shape (b, h, w, 3), any sides of at
                least 29 px.
            tokens: integer ids, 0 is padding, of shape (b, l) for one prompt per image or (b, p, l).

        Raises:
            ValueError: a shape or type is another one, or an id is not in the vocabulary.
        """
        self._check_batch(images, tokens)
        single = tokens.ndim == 2
        tokens = np.asarray(tokens, np.int32)
        maps = _encode(self._model, self._variables, jnp.asarray(images, jnp.float32))
        parts = self._decoded(maps, tokens[:, None] if single else tokens)
        logits = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        return logits[:, 0] if single else logits[:, : tokens.shape[1]]

    def _decoded(
        self, maps: list[Float[Array, "b _h _w _c"]], tokens: Int[np.ndarray, "b p l"]
    ) -> list[Float[Array, "b _p h w"]]:
        """Returns mask logits of some prompts at a time, so that memory does not grow; surplus ones come last."""
        prompts = tokens.shape[1]
        # A power of two, so that few sizes are compiled; surplus places repeat the last prompt.
        at_once = min(self._prompts_at_once, 1 << (prompts - 1).bit_length())
        surplus = -prompts % at_once
        tokens = np.concatenate([tokens, np.repeat(tokens[:, -1:], surplus, axis=1)], axis=1)
        parts = np.split(tokens, tokens.shape[1] // at_once, axis=1)
        return [_decode(self._model, self._variables, maps, part) for part in parts]

    def _check_batch(self, images: np.ndarray | Array, tokens: np.ndarray | Array) -> None:
        """Refuses what `logits` cannot take."""
        sizes = self.architecture
        if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}; normalised float of shape (b, h, w, 3) "
                "is wanted (ops.geometry.normalise makes it from uint8)"
            )
        shapes.level_sizes(*images.shape[1:3])
        if tokens.ndim not in (2, 3) or 0 in tokens.shape or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(
                f"tokens are {tokens.dtype} of shape {tokens.shape}; integers of shape (b, l) or (b, p, l) are wanted"
            )
        if tokens.shape[0] != images.shape[0]:
            raise ValueError(f"images {images.shape} and tokens {tokens.shape} differ in their first axis")
        if tokens.shape[-1] > sizes.context_length:
            raise ValueError(f"tokens of shape {tokens.shape}: at most {sizes.context_length} ids a phrase")
        low, high = int(np.min(tokens)), int(np.max(tokens))
        if low < 0 or high >= sizes.vocab_size:
            raise ValueError(f"tokens hold ids {low} to {high}; the vocabulary is 0 to {sizes.vocab_size - 1}")


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"threshold = {threshold}; a number between 0 and 1 is wanted")


# The model is a static argument: segmenters of one architecture share what was compiled.
@functools.partial(jax.jit, static_argnums=0)
def _encode(model: UniLSeg, variables: dict, images: Float[Array, "b h w 3"]) -> list:
    return model.apply(variables, images, method="encode_image")


@functools.partial(jax.jit, static_argnums=0)
def _decode(model: UniLSeg, variables: dict, maps: list, tokens: Int[Array, "b p l"]) -> Float[Array, "b p h w"]:
    return model.apply(variables, maps, tokens, method="decode").mask_logits


@functools.partial(jax.jit, static_argnums=1)
def _upsample(logits: Float[Array, "b p h w"], size: int) -> Float[Array, "b p {size} {size}"]:
    return jax.nn.sigmoid(resize_align_corners(logits, (size, size)))
