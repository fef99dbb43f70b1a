"""The curves of saliency."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.evaluation.curves import draw_curves, write_curves


def curves(**changes):
    """Returns curves that depend on the threshold as real ones do: recall rises with the index."""
    rising = np.linspace(0.02, 1, 256)
    precision = 1 - 0.6 * rising**3
    return {
        "precision": precision,
        "recall": rising,
        "f_measure": 1.3 * precision * rising / (0.3 * precision + rising),
        **changes,
    }


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def where(picture, colour):
    """Returns the mean column and row of the pixels of a colour."""
    rows, columns = np.nonzero(np.abs(picture - np.array(colour)).max(axis=-1) <= 8)
    assert len(rows), f"nothing is drawn in {colour}"
    return columns.mean(), rows.mean()


def test_a_png_of_two_panels_is_written_whole(tmp_path):
    path = tmp_path / "new" / "curves.png"
    write_curves(path, curves(), "ecssd: $all, 2 × a_b")
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.png"]
    with Image.open(path) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (800, 400))
    assert path.read_bytes() == draw_curves(curves(), "ecssd: $all, 2 × a_b")
    assert path.stat().st_size < 60_000


def test_index_0_is_threshold_255():
    """The maximum of F is marked in red: at the right for index 0, at the left for the last one."""
    red = (214, 39, 40)
    peak = np.full(256, 0.3)
    peak[[0, 255]] = (0.9, 0.8)
    at_255 = pixels(draw_curves(curves(f_measure=peak)))[:, 400:]
    at_0 = pixels(draw_curves(curves(f_measure=peak[::-1].copy())))[:, 400:]
    assert where(at_255, red)[0] > where(at_0, red)[0] + 200


def test_precision_stands_upright_against_recall():
    blue = (31, 119, 180)
    low_recall = pixels(draw_curves(curves(precision=np.full(256, 0.9), recall=np.linspace(0.1, 0.2, 256))))[:, :400]
    low_precision = pixels(draw_curves(curves(precision=np.full(256, 0.2), recall=np.linspace(0.8, 0.9, 256))))[:, :400]
    assert where(low_recall, blue)[0] < where(low_precision, blue)[0] - 150
    assert where(low_recall, blue)[1] < where(low_precision, blue)[1] - 150


def test_curves_without_a_number_are_drawn_empty():
    nothing = np.full(256, np.nan)
    drawn = pixels(draw_curves({"precision": nothing, "recall": nothing, "f_measure": nothing}))
    assert drawn.shape == (400, 800, 3)


@pytest.mark.parametrize(
    ("changes", "said"), [({"recall": np.zeros(255)}, r"'recall' has the shape \(255,\)"), (None, "'recall'.* missing")]
)
def test_what_is_no_curve_is_refused(changes, said):
    wrong = {"precision": np.zeros(256)} if changes is None else curves(**changes)
    with pytest.raises(ValueError, match=said):
        draw_curves(wrong)


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, unilseg_jax.evaluation.curves; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
