"""A trained model in memory, wherever it came from."""

import dataclasses

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
