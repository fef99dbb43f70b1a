"""A trained model in memory, wherever it came from."""

import dataclasses

import numpy as np

from unilseg_jax.models.architecture import Architecture

RELEASED_INPUT_SIZE = 480
"""Pixels; the side of the square the released weights were trained on."""


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
