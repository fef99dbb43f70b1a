"""Bilinear resizing in both conventions: by hand, and as PyTorch does it."""

import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit

from unilseg_jax.ops import resize

resize_bilinear = quick_jit(resize.resize_bilinear, static_argnums=1)
resize_align_corners = quick_jit(resize.resize_align_corners, static_argnums=1)

SIZES = [((3, 4), (12, 16)), ((15, 15), (120, 120)), ((26, 35), (3, 4)), ((8, 9), (1, 1)), ((5, 7), (7, 5))]
CORNER_SIZES = [((24, 24), (96, 96)), ((26, 35), (103, 138)), ((9, 12), (4, 3)), ((2, 2), (5, 9)), ((7, 5), (7, 5))]


def column(values):
    return jnp.asarray(values, jnp.float32)[None, :, None, None]


@pytest.mark.parametrize(
    ("values", "rows", "wanted"),
    [
        ([0, 4], 4, [0, 1, 3, 4]),
        ([0, 1, 2, 7], 2, [0.5, 4.5]),
        # The centres lie at 2.5 (o + 0.5) - 0.5 = 0.75 and 3.25; an anti-aliased resize would look further.
        ([0, 4, 8, 0, 4], 2, [3, 1]),
        ([2, 4, 9], 1, [4]),
    ],
    ids=str,
)
def test_half_pixel_centres_by_hand(values, rows, wanted):
    for found in (
        resize_bilinear(column(values), (rows, 1))[0, :, 0, 0],
        resize_bilinear(column(values).swapaxes(1, 2), (1, rows))[0, 0, :, 0],
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "rows", "wanted"),
    [
        ([0, 4], 3, [0, 2, 4]),
        ([0, 3, 9], 7, [0, 1, 2, 3, 5, 7, 9]),
        ([1, 5, 2, 7, 3], 3, [1, 2, 3]),
        ([1, 5, 2, 7, 3], 2, [1, 3]),
    ],
    ids=str,
)
def test_aligned_corners_by_hand(values, rows, wanted):
    x = jnp.asarray(values, jnp.float32)[:, None] * jnp.ones((1, 2))
    for found in (
        resize_align_corners(x, (rows, 2)),
        resize_align_corners(x.T, (2, rows)).T,
    ):
        np.testing.assert_allclose(found, np.array(wanted)[:, None] * np.ones((1, 2)), atol=1e-6)


def test_leading_axes_and_channels_are_resized_each_for_itself():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6)), jnp.float32)
    found = resize_bilinear(x, (8, 3))
    assert found.shape == (2, 3, 8, 3, 6)
    np.testing.assert_allclose(found[1, 2], resize_bilinear(x[1, 2], (8, 3)), atol=1e-6)
    found = resize_align_corners(x, (8, 3))
    assert found.shape == (2, 3, 4, 8, 3)
    np.testing.assert_allclose(found[1, 2, 3], resize_align_corners(x[1, 2, 3], (8, 3)), atol=1e-6)


def test_an_unchanged_size_changes_nothing():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 5, 2)), jnp.float32)
    np.testing.assert_array_equal(resize_bilinear(x, (4, 5)), x)
    np.testing.assert_allclose(resize_align_corners(x[..., 0], (4, 5)), x[..., 0], atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize(("size", "wanted"), SIZES, ids=str)
def test_half_pixel_centres_are_torch_s(size, wanted):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), wanted, mode="bilinear", align_corners=False
    )
    found = resize_bilinear(jnp.asarray(x), wanted)
    np.testing.assert_allclose(found, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def exact_corners(x, wanted):
    """Returns each axis interpolated in float64."""
    x = np.asarray(x, np.float64)
    for axis, new in zip((-2, -1), wanted, strict=True):
        old = x.shape[axis]
        x = np.apply_along_axis(lambda row: np.interp(np.linspace(0, old - 1, new), np.arange(old), row), axis, x)  # noqa: B023
    return x


@pytest.mark.parametrize(("size", "wanted"), CORNER_SIZES, ids=str)
def test_aligned_corners_are_exact(size, wanted):
    x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    np.testing.assert_allclose(resize_align_corners(jnp.asarray(x), wanted), exact_corners(x, wanted), atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize(("size", "wanted"), CORNER_SIZES, ids=str)
def test_aligned_corners_are_torch_s(size, wanted):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x), wanted, mode="bilinear", align_corners=True)
    # PyTorch computes where to read in float32: at 35, exact to 4e-6, times a step of up to 5.
    np.testing.assert_allclose(resize_align_corners(jnp.asarray(x), wanted), theirs.numpy(), atol=2e-5)
