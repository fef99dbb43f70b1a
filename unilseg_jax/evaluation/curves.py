"""Curves of a soft map over its 256 thresholds: precision against recall, and F.

The arrays are those of PySODMetrics, averaged over pictures: (256,), index 0 is threshold 255, the last one is
threshold 0.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unilseg_jax.interop.output import written_whole

NAMES = ("precision", "recall", "f_measure")
THRESHOLDS = 256
_PANEL, _DPI = 4.0, 100  # inches, so that a panel is 400 px wide and high


def write_curves(path: Path, curves: Mapping[str, np.ndarray], title: str = "") -> None:
    """Writes both panels of `draw_curves` to a PNG, which gets its name when it is whole.

    Args:
        path: PNG to write; its folder is made if missing.
        curves: see `draw_curves`.
        title: above the panels.

    Raises:
        UserError: it cannot be written.
        ValueError: a curve is missing or has not 256 values.
    """
    picture = draw_curves(curves, title)
    with written_whole(Path(path)) as temporary:
        temporary.write_bytes(picture)


def draw_curves(curves: Mapping[str, np.ndarray], title: str = "") -> bytes:
    """Returns a PNG: precision against recall on the left, F over thresholds, with its mean and maximum, on the right.

    Args:
        curves: "precision", "recall" and "f_measure", (256,) each, fractions; NaN leaves a gap.
        title: above the panels, taken as plain text.

    Raises:
        ValueError: a curve is missing or has not 256 values.
    """
    precision, recall, f_measure = _checked(curves)
    # Imported here: it takes a second, and only saliency needs it. Without pyplot no global state is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * _PANEL, _PANEL), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(recall, precision, color="C0")
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1))
    left.set_title("precision and recall", fontsize="medium")
    thresholds = np.arange(THRESHOLDS - 1, -1, -1)
    right.plot(thresholds, f_measure, color="C0")
    right.set(xlabel="threshold (of 255)", ylabel="F", xlim=(-3, THRESHOLDS + 2))
    said = "F over thresholds"
    if np.isfinite(f_measure).any():
        mean, highest = np.nanmean(f_measure), np.nanargmax(f_measure)
        right.axhline(mean, color="0.5", linestyle="--")
        right.plot(thresholds[highest], f_measure[highest], "o", color="C3")
        # In the title, since a legend would cover some curve.
        said = f"F: mean {mean:.4f}, maximum {f_measure[highest]:.4f} at {thresholds[highest]}"
    right.set_title(said, fontsize="medium")
    for axes in (left, right):
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
    if title:
        # A dollar sign would start a formula.
        figure.suptitle(title, parse_math=False)
    content = io.BytesIO()
    canvas.print_png(content, metadata={"Software": None})
    return content.getvalue()


def _checked(curves: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Returns the three curves in the order of `NAMES`, as float64."""
    if missing := [name for name in NAMES if name not in curves]:
        raise ValueError(f"the curves are {sorted(curves)}, {missing} is missing")
    arrays = [np.asarray(curves[name], np.float64) for name in NAMES]
    for name, array in zip(NAMES, arrays, strict=True):
        if array.shape != (THRESHOLDS,):
            raise ValueError(f"the curve {name!r} has the shape {array.shape}, ({THRESHOLDS},) is wanted")
    return arrays
