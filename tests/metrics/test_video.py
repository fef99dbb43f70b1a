"""Region similarity and contour accuracy as DAVIS 2017 counts them."""

import math

import numpy as np
import pytest

from unilseg_jax.metrics.video import VideoMetric, contour_accuracy, region_similarity


def box(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def blobs(generator, shape, density=0.5):
    """Returns a random mask of some patches."""
    coarse = generator.random((-(-shape[0] // 5), -(-shape[1] // 5))) < density
    return np.kron(coarse, np.ones((5, 5), bool))[: shape[0], : shape[1]]


# Contour accuracy, pixel by pixel.


def contour_pixels(mask):
    """Returns the contour's pixels by the rule for the inside, the last row, the last column and the corner."""
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            neighbours = []
            if x + 1 < width:
                neighbours.append((y, x + 1))
            if y + 1 < height:
                neighbours.append((y + 1, x))
            if x + 1 < width and y + 1 < height:
                neighbours.append((y + 1, x + 1))
            if any(mask[y, x] != mask[neighbour] for neighbour in neighbours):
                found.append((y, x))
    return np.array(found, np.int64).reshape(-1, 2)


def accuracy_by_all_pairs(prediction, target):
    """Returns F with the squared distances of all pairs of contour pixels, in whole numbers."""
    found, wanted = contour_pixels(prediction), contour_pixels(target)
    if not len(found) or not len(wanted):
        return float(len(found) == len(wanted))
    radius = math.ceil(0.008 * math.sqrt(prediction.shape[0] ** 2 + prediction.shape[1] ** 2))
    near = ((found[:, None] - wanted[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# 300 × 5 has a radius of 3, so that disk and square differ.
@pytest.mark.parametrize("shape", [(24, 31), (5, 300), (80, 110), (1, 40), (40, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_contour_accuracy_agrees_with_all_pairs(shape, seed):
    generator = np.random.default_rng(seed)
    target = blobs(generator, shape, 0.3)
    prediction = target ^ blobs(generator, shape, 0.2)
    found = contour_accuracy(prediction, target)
    assert found == pytest.approx(accuracy_by_all_pairs(prediction, target), abs=1e-9)
    assert contour_accuracy(target, prediction) == pytest.approx(found, abs=1e-12)
    assert contour_accuracy(target, target) == 1.0


def test_the_tolerance_is_a_disk_of_the_rounded_up_share_of_the_diagonal():
    # The diagonal is 250: 0.008 of it are 2 pixels exactly. One pixel has a contour of 2 × 2.
    shape = (150, 200)
    target = box(shape, (50, 51), (50, 51))
    assert contour_accuracy(box(shape, (50, 51), (52, 53)), target) == 1.0
    assert contour_accuracy(box(shape, (50, 51), (53, 54)), target) == 0.5
    # Only the nearest of its 4 pixels is in the disk; within a square all would be.
    assert contour_accuracy(box(shape, (52, 53), (52, 53)), target) == 0.25
    # One row more, and it is 3 pixels.
    shape = (151, 200)
    target = box(shape, (50, 51), (50, 51))
    assert contour_accuracy(box(shape, (50, 51), (53, 54)), target) == 1.0


def test_the_frame_of_the_image_is_no_contour():
    full, empty = np.ones((20, 30), bool), np.zeros((20, 30), bool)
    assert contour_accuracy(full, empty) == 1.0
    assert region_similarity(full, empty) == 0.0
    # Along the last row only the step to the east is seen, along the last column only that to the south.
    corner = box((3, 4), (2, 3), (2, 4))
    np.testing.assert_array_equal(contour_pixels(corner), [(1, 1), (1, 2), (1, 3), (2, 1)])


def test_one_contour_alone_is_no_agreement():
    empty, some = np.zeros((20, 30), bool), box((20, 30), (3, 9), (4, 8))
    assert contour_accuracy(some, empty) == contour_accuracy(empty, some) == 0.0
    assert contour_accuracy(empty, empty) == 1.0


def test_contours_far_apart_agree_nowhere():
    assert contour_accuracy(box((40, 40), (2, 5), (2, 5)), box((40, 40), (30, 35), (30, 35))) == 0.0


def test_region_similarity_by_hand():
    target = box((4, 6), (0, 2), (0, 4))
    assert region_similarity(box((4, 6), (0, 2), (1, 5)), target) == 6 / 10
    assert region_similarity(target, target) == 1.0
    assert region_similarity(np.zeros((4, 6), bool), target) == 0.0
    assert region_similarity(np.zeros((4, 6), bool), np.zeros((4, 6), bool)) == 1.0


def test_void_pixels_do_not_count():
    target, prediction = box((12, 20), (2, 8), (2, 8)), box((12, 20), (2, 8), (2, 14))
    void = box((12, 20), (0, 12), (8, 20))
    assert region_similarity(prediction, target, void) == contour_accuracy(prediction, target, void) == 1.0
    assert region_similarity(prediction, target) == 0.5
    assert contour_accuracy(prediction, target) < 0.9
    everything = np.ones((12, 20), bool)
    assert region_similarity(prediction, target, everything) == contour_accuracy(prediction, target, everything) == 1.0
    # Void belongs to neither mask, so a mask that it cuts has a contour there.
    cut = box((12, 20), (0, 12), (0, 5))
    assert contour_accuracy(target, target & ~cut, cut) == 1.0


# The metric over expressions.


def test_means_go_over_frames_and_then_over_expressions():
    metric = VideoMetric()
    empty, full = np.zeros((1, 12, 20), bool), np.ones((1, 12, 20), bool)
    some = box((12, 20), (2, 8), (2, 8))[None]
    # J 1, 0, 0 and F 1, 1, 0 in three frames; both 1 in the one frame of the other.
    assert metric.update("a/0", np.concatenate([some, full, some]), np.concatenate([some, empty, empty])) == (
        pytest.approx(1 / 3, abs=1e-12),
        pytest.approx(2 / 3, abs=1e-12),
    )
    assert metric.update("a/1", some, some) == (1.0, 1.0)
    result = metric.compute()
    assert result["j"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-12)
    assert result["f"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-12)
    assert result["j_and_f"] == pytest.approx((result["j"] + result["f"]) / 2, abs=1e-12)
    assert result["count"] == len(metric) == 2
    assert list(result) == ["j", "f", "j_and_f", "count"]
    assert metric.rows()["frames"].tolist() == [3, 1]


def test_frames_have_voids_of_their_own():
    target = np.stack([box((12, 20), (2, 8), (2, 8))] * 2)
    prediction = np.stack([box((12, 20), (2, 8), (2, 14))] * 2)
    void = np.stack([box((12, 20), (0, 12), (8, 20)), np.zeros((12, 20), bool)])
    j, f = VideoMetric().update("a", prediction, target, void=void)
    assert j == 0.75
    assert f == pytest.approx((1 + contour_accuracy(prediction[1], target[1])) / 2, abs=1e-12)


def test_more_frames_than_a_byte_counts():
    frames = np.zeros((300, 2, 3), bool)
    frames[:270] = True
    j, _ = VideoMetric().update("long", frames, np.ones((300, 2, 3), bool))
    assert j == 0.9


def test_no_expression_is_undefined():
    result = VideoMetric().compute()
    assert result.pop("count") == 0
    assert all(math.isnan(value) for value in result.values())


def test_an_expression_given_twice_is_refused():
    some = np.ones((1, 4, 5), bool)
    first, second = VideoMetric(), VideoMetric()
    first.update("video/0", some, some)
    with pytest.raises(ValueError, match="'video/0' was given twice"):
        first.update("video/0", ~some, some)
    second.update("video/0", some, some)
    with pytest.raises(ValueError, match=r"'video/0'.* in both metrics"):
        first.merge(second)
    with pytest.raises(ValueError, match="'video/0' was given twice"):
        VideoMetric().with_rows(first.rows()).update("video/0", some, some)
    with pytest.raises(ValueError, match="'video/0' was given twice"):
        first.merge(VideoMetric()).update("video/0", some, some)
    assert first.compute() == {"j": 1.0, "f": 1.0, "j_and_f": 1.0, "count": 1}


def test_a_resample_may_hold_an_expression_twice():
    metric = VideoMetric()
    some, none = np.ones((1, 4, 5), bool), np.zeros((1, 4, 5), bool)
    metric.update("a", some, some)
    metric.update("b", none, some)
    indices = np.array([0, 0, 1, 0])
    resample = metric.with_rows({name: column[indices] for name, column in metric.rows().items()})
    assert (resample.compute()["j"], len(resample)) == (0.75, 4)


def test_an_expression_that_failed_can_be_given_again():
    metric = VideoMetric()
    some = np.ones((2, 4, 5), bool)
    with pytest.raises(ValueError, match=r"predictions bool \(1, 4, 5\) and targets bool \(2, 4, 5\)"):
        metric.update("a", some[:1], some)
    assert metric.update("a", some, some) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("predictions", "targets", "void", "message"),
    [
        (np.ones((2, 4, 5), np.uint8), np.ones((2, 4, 5), bool), None, r"predictions uint8 .* must be bool"),
        (np.ones((2, 4, 5), bool), np.ones((2, 4, 5), np.float32), None, r"targets float32 .* must be bool"),
        (np.ones((4, 5), bool), np.ones((4, 5), bool), None, r"\(t, h, w\)"),
        (np.ones((2, 4, 5), bool), np.ones((2, 5, 4), bool), None, r"\(2, 4, 5\).*\(2, 5, 4\)"),
        (np.ones((2, 4, 5), bool), np.ones((2, 4, 5), bool), np.ones((4, 5), bool), r"void bool \(4, 5\)"),
        (np.ones((0, 4, 5), bool), np.ones((0, 4, 5), bool), None, r"no frame.*\(0, 4, 5\)"),
    ],
)
def test_other_frames_are_refused(predictions, targets, void, message):
    metric = VideoMetric()
    with pytest.raises(ValueError, match=message):
        metric.update("a", predictions, targets, void)
    assert len(metric) == 0


@pytest.mark.parametrize("judge", [region_similarity, contour_accuracy])
def test_other_masks_are_refused(judge):
    mask = np.ones((4, 5), bool)
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        judge(mask, mask.T)
    with pytest.raises(ValueError, match=r"target uint8 .* must be bool"):
        judge(mask, mask.astype(np.uint8))
    with pytest.raises(ValueError, match=r"void bool \(1, 5\)"):
        judge(mask, mask, mask[:1])
    with pytest.raises(ValueError, match=r"shape \(h, w\)"):
        judge(mask[None], mask[None])


@pytest.mark.parametrize("name", ["", "a\0"])
def test_names_that_arrays_lose_are_refused(name):
    mask = np.ones((1, 4, 5), bool)
    with pytest.raises(ValueError, match="expression_id"):
        VideoMetric().update(name, mask, mask)
