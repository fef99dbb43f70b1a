"""Two pictures through the released input and output path.

OpenCV 4 and 5 warp otherwise (2 grey levels, 1.2e-2 of the probability), so each has the arrays that the released
functions give with it. Tolerances: 1 grey level, 2e-2 on the normalised input (1 grey level is 1.5e-2), 1e-2 on the
probability.
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unilseg_jax.ops.geometry import letterbox, normalise, unletterbox
from unilseg_jax.ops.resize import resize_align_corners

THRESHOLD = 0.35
SIZE = 96


@pytest.fixture(params=["landscape", "portrait"])
def case(request, golden_dir):
    arrays = dict(np.load(golden_dir / "letterbox.npz"))
    if int(cv2.__version__.split(".")[0]) < 5:
        arrays |= np.load(golden_dir / "letterbox_opencv4.npz")
    prefix = request.param + "_"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def test_the_letterboxed_picture_is_the_released_one(case):
    ours = letterbox(case["image"], SIZE).astype(int)
    assert np.abs(ours - case["letterboxed"]).max() <= 1


def test_the_network_input_is_the_released_one(case):
    ours = normalise(letterbox(case["image"], SIZE)).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, case["input"], atol=2e-2, rtol=0)


def test_probability_and_mask_are_the_released_ones(case):
    upsampled = jax.nn.sigmoid(resize_align_corners(jnp.asarray(case["logits"][None]), (SIZE, SIZE)))
    ours = unletterbox(np.asarray(upsampled), case["image"].shape[:2])[0]
    np.testing.assert_allclose(ours, case["probability"], atol=1e-2, rtol=0)
    clear = np.abs(case["probability"] - THRESHOLD) > 1e-2
    np.testing.assert_array_equal((ours > THRESHOLD)[clear], case["mask"][clear])
    assert clear.mean() > 0.9
