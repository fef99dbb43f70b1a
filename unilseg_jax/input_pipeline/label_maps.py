"""Label maps as triplets: one mask and the phrase "all CLASS" for each class of a picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.input_pipeline.builder import Annotations
from unilseg_jax.input_pipeline.raw_files import Picture
from unilseg_jax.text.prompts import ClassName, all_of


def semantic_record(
    picture: Picture,
    labels: Int64[np.ndarray, "h w"],
    names: Sequence[ClassName],
    *,
    image_id: str,
    source: str,
    licence: str,
) -> dict[str, object]:
    """Makes the record of a picture whose pixels each have one label.

    A pixel that is in no mask had the label 0, "not evaluated": the label map can be told from the record.

    Args:
        picture: as it was read.
        labels: at the picture's size; 0, or the label of one of `names`.
        names: of the classes that are evaluated.
        image_id: names the picture within its source.
        source: of the record.
        licence: of the record.

    Returns:
        The record; a mask's category is the class's phrase, its id the label. Where no class that is evaluated
        occurs, there is no mask.

    Raises:
        UserError: a label has no name.
    """
    by_label = {name.label: name for name in names}
    found = Annotations(picture.height, picture.width)
    for label in np.unique(labels).tolist():
        if label == 0:
            continue
        if label not in by_label:
            raise UserError(
                f"the label map has the label {label}, 0 to {max(by_label)} are wanted; "
                "take the label maps as their authors publish them"
            )
        phrase = by_label[label].phrase
        found.add(labels == label, [all_of(phrase)], kind="category", category=phrase, source_id=label)
    return triplet.encode_record(
        image=picture.encoded,
        image_id=image_id,
        height=picture.height,
        width=picture.width,
        masks=found.masks,
        phrases=found.phrases,
        task="semantic",
        source=source,
        licence=licence,
    )
