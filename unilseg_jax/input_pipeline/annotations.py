"""Gathers what is annotated in a picture, on the way to its record."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.ops.masks import mask_box, mask_to_rle


class Annotations:
    """Gathers the masks and phrases of one picture.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
    """

    def __init__(self, height: int, width: int):
        self._size = (height, width)
        self.masks: list[triplet.RecordMask] = []
        self.phrases: list[triplet.RecordPhrase] = []

    def add(
        self,
        mask: UInt8[np.ndarray, "h w"] | Bool[np.ndarray, "h w"],
        texts: Iterable[str],
        *,
        kind: str,
        category: str = "",
        phrase_kind: str | None = None,
        score: float = 1.0,
        source_id: int = -1,
    ) -> int:
        """Adds a mask with the phrases that name it.

        Args:
            mask: {0, 1}, at the picture's size.
            texts: raw phrases; none for a mask without text.
            kind: of the mask, one of `triplet.MASK_KINDS`.
            category: name of its class.
            phrase_kind: what the phrases speak of; None takes `kind`.
            score: 0 to 1.
            source_id: id of the annotation within its source.

        Returns:
            The mask's number.

        Raises:
            UserError: the mask is of another size than the picture, or empty.
        """
        if mask.shape != self._size:
            raise UserError(f"the mask is {mask.shape}, the picture {self._size}")
        mask = np.asarray(mask, np.uint8)
        if not mask.any():
            raise UserError("the mask has no pixel")
        self.masks.append(
            triplet.RecordMask(
                counts=mask_to_rle(mask),
                box=mask_box(mask),
                category=category,
                kind=kind,
                score=score,
                source_id=source_id,
            )
        )
        number = len(self.masks) - 1
        self.phrases += [triplet.RecordPhrase(text=text, mask_index=number, kind=phrase_kind or kind) for text in texts]
        return number

    def add_nothing(self, text: str) -> None:
        """Adds a phrase that matches nothing in the picture."""
        self.phrases.append(triplet.RecordPhrase(text=text, mask_index=triplet.NOTHING, kind="nothing"))
