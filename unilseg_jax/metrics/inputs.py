"""What metrics refuse to count, said in one line with both shapes and types. *Differs:* none."""

import numpy as np


def describe(**arrays: np.ndarray) -> str:
    """Returns each array's name, type and shape, such as `prediction bool (4, 5) and target uint8 (4, 5)`."""
    return " and ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())


def check_shapes(ndim: int, **arrays: np.ndarray) -> None:
    """Checks that the arrays have one shape of so many axes.

    Raises:
        ValueError: they do not.
    """
    axes = {2: "(h, w)", 3: "(t, h, w)"}[ndim]
    if len({array.shape for array in arrays.values()}) > 1:
        raise ValueError(f"{describe(**arrays)} must have one shape {axes}; bring the prediction to the target's size")
    if any(array.ndim != ndim for array in arrays.values()):
        raise ValueError(f"{describe(**arrays)} must have the shape {axes}; add or drop axes, or go one by one")


def check_masks(ndim: int, **arrays: np.ndarray) -> None:
    """Checks that the arrays are bool and have one shape of so many axes.

    Raises:
        ValueError: they are not.
    """
    check_shapes(ndim, **arrays)
    if any(array.dtype != np.bool_ for array in arrays.values()):
        raise ValueError(
            f"{describe(**arrays)} must be bool; compare probabilities with a threshold, labels with 0 (`mask > 0`)"
        )
