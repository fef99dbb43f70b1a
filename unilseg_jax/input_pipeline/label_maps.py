"""Label maps as masks by label."""

from collections.abc import Collection

import numpy as np
from jaxtyping import Bool, Int64

from unilseg_jax.errors import UserError


def masks_of_labels(
    labels: Int64[np.ndarray, "h w"], known: Collection[int], *, unlabelled: Collection[int] = (0,)
) -> dict[int, Bool[np.ndarray, "h w"]]:
    """Returns the mask of each label that occurs, in the order of the labels.

    Args:
        labels: one per pixel.
        known: labels of classes.
        unlabelled: labels of pixels without a class; they are in no mask.

    Raises:
        UserError: another label occurs.
    """
    masks = {}
    for label in np.unique(labels).tolist():
        if label in unlabelled:
            continue
        if label not in known:
            raise UserError(
                f"the label map has the label {label}; {min(known)} to {max(known)} are classes, "
                f"{' or '.join(map(str, unlabelled))} stands for none; take the maps as their authors publish them"
            )
        masks[label] = labels == label
    return masks
