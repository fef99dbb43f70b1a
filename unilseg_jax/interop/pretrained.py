"""A trained model in memory, wherever it came from."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.shapes import MIN_SIDE

RELEASED_INPUT_SIZE = 480
"""Pixels; the side of the square the released weights were trained on."""

MAX_INPUT_SIDE = 4096
"""Pixels, more than eight times the released side; beyond it a slip is likelier than a wish."""


def check_input_size(size: int, source: str) -> None:
    """Refuses a side of the network's input that no model can be used with.

    Args:
        size: in pixels.
        source: who says so, for the message.

    Raises:
        UserError: it is too small or too large.
    """
    if not MIN_SIDE <= size <= MAX_INPUT_SIDE:
        raise UserError(f"{source} is {size} px; {MIN_SIDE} to {MAX_INPUT_SIDE} px are wanted")


def check_finite(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Refuses weights of which some are not finite; all that such a model computes may be no number.

    Args:
        path: the file or folder that they are of, for the message.
        tensors: by name; whole numbers are always finite.

    Raises:
        UserError: names the first of such tensors, and how many of its values are not finite.
    """
    counts = {name: value.size - int(np.count_nonzero(np.isfinite(value))) for name, value in tensors.items()}
    spoilt = [name for name, count in counts.items() if count]
    if spoilt:
        first, more = spoilt[0], len(spoilt) - 1
        others = f", and {more} more {'tensor has' if more == 1 else 'tensors have'} such values" if more else ""
        raise UserError(
            f"the weights in {str(path)!r} are not all finite: {counts[first]:,} of {tensors[first].size:,} values of "
            f"{first} are not{others}; copy them again, or name others"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights, and what is needed to use them.

    Attributes:
        architecture: the model's sizes.
        variables: `params` and `batch_stats` as nested dictionaries of float32 arrays.
        input_size: side of the square network input in pixels.
        carried: tensors of the released file that nothing computes with, by released name; kept so that
            an export is complete.
    """

    architecture: Architecture
    variables: dict
    input_size: int = RELEASED_INPUT_SIZE
    carried: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
