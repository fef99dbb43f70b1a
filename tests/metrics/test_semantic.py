"""Mean IoU over classes, and label maps from logits."""

import math

import numpy as np
import pytest

from unilseg_jax.metrics.semantic import SemanticMetric, fuse_label_map

IGNORED = 255


def counted_pixel_by_pixel(pairs, num_classes, ignored=IGNORED):
    """Counts with a loop over pixels and sets of places per class."""
    found, wanted = [set() for _ in range(num_classes)], [set() for _ in range(num_classes)]
    for number, (prediction, target) in enumerate(pairs):
        for place in np.ndindex(target.shape):
            if int(target[place]) != ignored:
                found[int(prediction[place])].add((number, place))
                wanted[int(target[place])].add((number, place))
    ious = [len(f & w) / len(f | w) if f | w else math.nan for f, w in zip(found, wanted, strict=True)]
    recalls = [len(f & w) / len(w) for f, w in zip(found, wanted, strict=True) if w]
    counted = [iou for iou in ious if not math.isnan(iou)]
    right = sum(len(f & w) for f, w in zip(found, wanted, strict=True))
    return {
        "miou": sum(counted) / len(counted),
        "macc": sum(recalls) / len(recalls),
        "aacc": right / sum(len(w) for w in wanted),
        "iou": ious,
        "counted_classes": len(counted),
    }


def label_maps(generator, num_classes, count=4, dtype=np.uint8):
    """Returns pairs of prediction and target; the last two classes are in neither, the one before in predictions."""
    pairs = []
    for _ in range(count):
        shape = tuple(generator.integers(3, 9, 2))
        target = generator.integers(0, num_classes - 3, shape).astype(dtype)
        noise = generator.integers(0, num_classes - 2, shape).astype(dtype)
        prediction = np.where(generator.random(shape) < 0.6, target, noise)
        target[generator.random(shape) < 0.2] = 100 if dtype == np.int8 else IGNORED
        pairs.append((prediction, target))
    return pairs


def metric_of(pairs, num_classes, **settings):
    metric = SemanticMetric(num_classes, **settings)
    for prediction, target in pairs:
        metric.update(prediction, target)
    return metric


def test_by_hand():
    target = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 2, 2, 0]], np.uint8)
    result = metric_of([(prediction, target)], 4).compute()
    # 0: 2 of 3; 1: 2 of 4; 2: predicted once and nowhere in the target; 3: nowhere.
    np.testing.assert_allclose(result["iou"], [2 / 3, 1 / 2, 0, np.nan], rtol=0, atol=1e-12)
    assert result["miou"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3, abs=1e-12)
    assert result["macc"] == pytest.approx((2 / 3 + 2 / 3) / 2, abs=1e-12)
    assert result["aacc"] == pytest.approx(4 / 6, abs=1e-12)
    assert result["counted_classes"] == 3
    assert list(result) == ["miou", "macc", "aacc", "iou", "counted_classes"]


def test_pixels_are_added_up_before_classes_are_averaged():
    # One pixel of 1 and none of 99: not the mean of 1 and 0.
    first, second = np.zeros((1, 1), np.uint8), np.zeros((9, 11), np.uint8)
    result = metric_of([(first, first), (second + 1, second)], 2).compute()
    assert result["iou"].tolist() == [1 / 100, 0.0]
    assert result["miou"] == 1 / 200


def test_ignored_pixels_are_dropped_from_the_prediction_too():
    target = np.array([[0, 255]], np.uint8)
    for anything in (0, 1, 255):
        result = metric_of([(np.array([[0, anything]], np.uint8), target)], 2).compute()
        np.testing.assert_array_equal(result["iou"], [1.0, np.nan])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_agrees_with_a_loop_over_pixels(dtype):
    ignored = 100 if dtype == np.int8 else IGNORED
    pairs = label_maps(np.random.default_rng(3), 9, dtype=dtype)
    result = metric_of(pairs, 9, ignore_label=ignored).compute()
    wanted = counted_pixel_by_pixel(pairs, 9, ignored)
    for name, value in wanted.items():
        np.testing.assert_allclose(result[name], value, rtol=0, atol=1e-9, err_msg=name)
    assert result["counted_classes"] == 7


def test_labels_of_a_byte_do_not_overflow():
    target = np.full((40, 40), 149, np.uint8)
    result = metric_of([(target, target)], 150).compute()
    assert (result["miou"], result["counted_classes"]) == (1.0, 1)


def test_sums_do_not_overflow():
    pixels = np.tile(np.array([[2_000_000_000], [2_000_000_001], [2_000_000_000]]), (3, 1, 1))
    assert SemanticMetric(1).with_rows({"pixels": pixels}).compute()["miou"] == 6_000_000_000 / 6_000_000_003


def test_another_ignored_label():
    target = np.array([[0, -1, 1]], np.int16)
    result = metric_of([(np.array([[0, 0, 0]], np.uint8), target)], 2, ignore_label=-1).compute()
    assert result["iou"].tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="labels from -1 to 1"):
        SemanticMetric(2).update(target, target)


@pytest.mark.parametrize("pairs", [[], [(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))]])
def test_nothing_to_count_is_undefined(pairs):
    result = metric_of(pairs, 3).compute()
    assert result["counted_classes"] == 0
    assert np.isnan([result["miou"], result["macc"], result["aacc"], *result["iou"]]).all()


def test_other_labels_are_refused():
    metric = SemanticMetric(3)
    good = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="prediction has labels from 0 to 3"):
        metric.update(np.array([[0, 1, 3], [0, 0, 0]], np.uint8), good)
    with pytest.raises(ValueError, match="prediction has labels from 0 to 255"):
        metric.update(np.array([[0, 1, 255], [0, 0, 0]], np.uint8), good)
    with pytest.raises(ValueError, match="target has labels from 0 to 254"):
        metric.update(good, np.array([[0, 1, 254], [0, 0, 0]], np.uint8))
    with pytest.raises(ValueError, match="prediction has labels from -1 to 0"):
        metric.update(-np.eye(2, 3, dtype=np.int32), good)
    assert len(metric) == 0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((3, 2), np.uint8), r"\(3, 2\).*\(2, 3\)"),
        (np.zeros((1, 3), np.uint8), r"\(1, 3\).*\(2, 3\)"),
        (np.zeros((2, 3), np.float32), "prediction float32 .* must be integers"),
        (np.zeros((2, 3), bool), "prediction bool .* must be integers"),
    ],
)
def test_other_maps_are_refused(prediction, message):
    with pytest.raises(ValueError, match=message):
        SemanticMetric(3).update(prediction, np.zeros((2, 3), np.uint8))


def test_other_axes_are_refused():
    labels = np.zeros((1, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"shape \(h, w\)"):
        SemanticMetric(3).update(labels, labels)


@pytest.mark.parametrize(("num_classes", "ignored"), [(0, 255), (256, 255), (3, 2)])
def test_settings_that_contradict_are_refused(num_classes, ignored):
    with pytest.raises(ValueError, match=f"num_classes {num_classes} and ignore_label {ignored}"):
        SemanticMetric(num_classes, ignored)


@pytest.mark.torch
def test_agrees_with_torchmetrics():
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    pairs = label_maps(np.random.default_rng(4), 9)
    found = metric_of(pairs, 9).compute()
    for average, wanted in (("macro", found["miou"]), ("none", np.nan_to_num(found["iou"]))):
        judge = MulticlassJaccardIndex(9, average=average, ignore_index=IGNORED)
        # Class 8 and 7 occur nowhere, 6 is only predicted.
        for prediction, target in pairs:
            judge.update(*(torch.from_numpy(labels.astype(np.int64))[None] for labels in (prediction, target)))
        # Its results are float32.
        np.testing.assert_allclose(judge.compute().numpy(), wanted, rtol=0, atol=1e-6)


# Label maps from logits.

SIZES = [
    ((5, 7), (13, 22)),
    ((8, 6), (4, 3)),
    ((9, 12), (3, 4)),
    ((30, 20), (7, 33)),
    ((1, 1), (4, 5)),
    ((6, 5), (6, 5)),
]


def resized(maps, size):
    """Returns maps at another size: bilinear in float64, half-pixel centres, no anti-aliasing."""

    def weights(old, new):
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        return np.maximum(0, 1 - np.abs(np.arange(old) - place[:, None]))

    rows, columns = (weights(old, new) for old, new in zip(maps.shape[1:], size, strict=True))
    return np.einsum("ih,nhw,jw->nij", rows, maps.astype(np.float64), columns)


def assert_labels_of(labels, maps):
    """Asserts that every pixel has a class of the highest value, as far as float32 can tell, and most the highest."""
    chosen = np.take_along_axis(maps, labels[None], axis=0)[0]
    np.testing.assert_allclose(chosen, maps.max(axis=0), rtol=0, atol=1e-5)
    assert (labels == maps.argmax(axis=0)).mean() > 0.99


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_labels_are_those_of_the_resized_logits(old, new, dtype):
    logits = np.random.default_rng(5).normal(size=(6, *old)).astype(dtype)
    labels = fuse_label_map(logits, new)
    assert (labels.shape, labels.dtype) == (new, np.int64)
    assert_labels_of(labels, resized(logits, new))


@pytest.mark.torch
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_labels_are_those_of_torch(old, new):
    import torch

    logits = np.random.default_rng(6).normal(size=(6, *old)).astype(np.float32)
    maps = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], new, mode="bilinear", align_corners=False)
    assert_labels_of(fuse_label_map(logits, new), maps[0].numpy())


def test_resizing_comes_before_the_choice_and_probabilities_would_choose_otherwise():
    # In four columns the first class has 0, 1.5, 4.5 and 6, the second 1.4 everywhere.
    logits = np.array([[[0.0, 6.0]], [[1.4, 1.4]]], np.float32)
    assert fuse_label_map(logits, (1, 4)).tolist() == [[1, 0, 0, 0]]
    # As probabilities .50, .62, .87 and 1 against .80.
    probs = 1 / (1 + np.exp(-logits))
    assert fuse_label_map(probs, (1, 4)).tolist() == [[1, 1, 0, 0]]


def test_the_lowest_of_equal_classes_is_chosen():
    logits = np.random.default_rng(7).normal(size=(1, 5, 6)).astype(np.float32)
    low = np.full_like(logits, -9)
    assert (fuse_label_map(np.concatenate([low, logits, logits, low]), (11, 13)) == 1).all()


def test_logits_need_not_be_contiguous():
    logits = np.random.default_rng(8).normal(size=(5, 6, 4)).astype(np.float32)
    wanted = fuse_label_map(np.ascontiguousarray(np.moveaxis(logits, -1, 0)), (9, 9))
    np.testing.assert_array_equal(fuse_label_map(np.moveaxis(logits, -1, 0), (9, 9)), wanted)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((2, 3), np.float32), r"float32 \(2, 3\).*\(n, h, w\)"),
        (np.zeros((0, 2, 3), np.float32), r"\(0, 2, 3\)"),
        (np.zeros((4, 2, 3), np.uint8), r"uint8 \(4, 2, 3\) must be finite floats"),
        (np.zeros((4, 2, 3), bool), "must be finite floats"),
        (np.full((4, 2, 3), np.nan), "must be finite floats"),
        (np.full((4, 2, 3), -np.inf, np.float32), "must be finite floats"),
    ],
)
def test_other_logits_are_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        fuse_label_map(logits, (4, 6))
    with pytest.raises(ValueError, match=r"size \(0, 6\)"):
        fuse_label_map(np.zeros((4, 2, 3), np.float32), (0, 6))
