"""The user's API: a trained model that segments what phrases name.

Differs: the released demo letterboxes and cuts at 0.35, which is the default; the paper resizes to the square
and cuts at 0.5 (`resize="stretch"`). Probabilities are clipped to 0 to 1, since bicubic warping overshoots.
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from unilseg_jax import shapes
from unilseg_jax.errors import UserError, checked_file
from unilseg_jax.evaluation.passport import weights_sha256
from unilseg_jax.evaluation.predictor import DTYPES, Predictor, default_buckets, split
from unilseg_jax.evaluation.predictor import EncodedImage as _Encoded
from unilseg_jax.evaluation.predictor import decode_features as _decode
from unilseg_jax.evaluation.predictor import encode_image as _encode
from unilseg_jax.evaluation.text_features import encode_text
from unilseg_jax.input_pipeline.images import ImageSource
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.ops import geometry

__all__ = ["DTYPES", "EncodedImage", "Prediction", "Segmenter"]


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
class EncodedImage(_Encoded):
    """A picture behind the image encoder, ready for any number of phrases.

    Attributes:
        maps: the encoder's levels, for one picture.
        original_size: height and width of the picture, in pixels.
        resize: a key of `ops.geometry.RESIZES`.
        encoder: input size, kind of numbers and checksum of the weights of the image encoder that it went through.
    """

    encoder: tuple[int, str, int]


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
        if prompts_at_once is not None and prompts_at_once < 1:
            raise UserError(f"prompts_at_once = {prompts_at_once}; at least 1 is wanted")
        self._prompts_at_once = prompts_at_once or max(default_buckets())
        # Powers of two, so that few sizes are compiled.
        smaller = [1 << power for power in range((self._prompts_at_once - 1).bit_length())]
        self._predictor = Predictor(
            pretrained, input_size=input_size, dtype=dtype, buckets=[*smaller, self._prompts_at_once]
        )
        self.architecture = self._predictor.architecture
        self.input_size = self._predictor.input_size
        self._model = self._predictor.model
        self._variables = self._predictor.variables

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
        return self._segment(self._predictor.encode(image, resize), phrases, tokens, threshold)

    def encode(self, image: ImageSource, *, resize: str = "letterbox") -> EncodedImage:
        """Does the part of `predict` that does not depend on the phrases; `segment` does the rest.

        Args:
            image: a path, a PIL image, or uint8 RGB of shape (h, w, 3).
            resize: "letterbox" as released, or "stretch" as in the paper.

        Raises:
            UserError: the picture cannot be read, or `resize` is not known.
        """
        encoded = self._predictor.encode(image, resize)
        parts = {field.name: getattr(encoded, field.name) for field in dataclasses.fields(encoded)}
        return EncodedImage(**parts, encoder=self._encoder)

    @functools.cached_property
    def weights_sha256(self) -> str:
        """The hash of all weights that results of `evaluate` and presence files name them by."""
        return weights_sha256(self._variables)

    @functools.cached_property
    def _encoder(self) -> tuple[int, str, int]:
        """What tells this model's encoded pictures from those of others."""
        checksum = 0
        for leaf in jax.tree.leaves(self._variables["params"]["image_encoder"]):
            checksum = zlib.crc32(np.ascontiguousarray(leaf), checksum)
        return self.input_size, jnp.dtype(self._model.dtype).name, checksum

    def segment(self, encoded: EncodedImage, phrases: Sequence[str], *, threshold: float | None = None) -> Prediction:
        """Segments an encoded picture by phrases.

        Args:
            encoded: what `encode` returned, of this Segmenter or of one with the same image encoder and input size.
            phrases: raw texts, at least one.
            threshold: the cut between 0 and 1; None takes the one that goes with the way of resizing.

        Raises:
            UserError: the picture was encoded otherwise, a phrase has no words, or the threshold is not possible.
        """
        _check_threshold(threshold)
        self._check_encoded(encoded)
        return self._segment(encoded, phrases, self.tokens(phrases), threshold)

    def _segment(
        self,
        encoded: _Encoded,
        phrases: Sequence[str],
        tokens: Int[np.ndarray, "p l"],
        threshold: float | None,
    ) -> Prediction:
        """Does what `segment` does, for arguments that were checked."""
        threshold = geometry.RESIZES[encoded.resize].threshold if threshold is None else threshold
        probs = self._predictor.probabilities(encoded, self._predictor.cache.features(tokens))
        return Prediction(probs=probs, masks=probs > threshold, phrases=tuple(phrases), threshold=float(threshold))

    def tokens(self, phrases: Sequence[str]) -> Int[np.ndarray, "p l"]:
        """Returns the ids of phrases as this model takes them.

        Raises:
            UserError: there is no phrase, one has no words, or the model has another vocabulary.
        """
        if not isinstance(phrases, str) and not hasattr(phrases, "__len__"):
            raise UserError(f"phrases is a {type(phrases).__name__}; a list of at least one text is wanted")
        return self._predictor.tokens(phrases)

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
        tokens = tokens[:, None] if single else tokens
        maps = _encode(self._model, self._variables, jnp.asarray(images, jnp.float32))
        parts, start, prompts = [], 0, tokens.shape[1]
        # Some prompts at a time, so that memory does not grow; surplus places repeat the last one.
        for size in split(prompts, self._predictor.buckets):
            part = tokens[:, np.minimum(np.arange(start, start + size), prompts - 1)]
            words, sentence = encode_text(self._model, self._variables, part)
            parts.append(_decode(self._model, self._variables, maps, words, sentence, part != 0))
            start += size
        logits = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        return logits[:, 0] if single else logits[:, :prompts]

    def _check_encoded(self, encoded: EncodedImage) -> None:
        """Refuses what is no picture that this model's image encoder has seen."""
        if not isinstance(encoded, EncodedImage):
            raise UserError(
                f"encoded is a {type(encoded).__name__}; what encode() returned is wanted (predict() takes a picture)"
            )
        (size, dtype, weights), (own_size, own_dtype, own_weights) = encoded.encoder, self._encoder
        differs = [f"another input size ({size}, here {own_size})"] if size != own_size else []
        differs += [f"another dtype ({dtype}, here {own_dtype})"] if dtype != own_dtype else []
        differs += ["other weights"] if weights != own_weights else []
        if differs:
            raise UserError(f"the picture was encoded with {', '.join(differs)}; encode it with this Segmenter")

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
    try:
        fits = threshold is None or 0 < threshold < 1
    except (TypeError, ValueError):  # a text, or an array of several
        fits = False
    if not fits:
        raise UserError(f"threshold = {threshold!r}; a number between 0 and 1 is wanted")
