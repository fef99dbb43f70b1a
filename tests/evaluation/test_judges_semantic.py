"""Label maps of classes and of parts: what is asked, what does not count, and the numbers against a plain loop."""

import math

import numpy as np
import pytest
from planted_maps import Planted, Records, box, found_by, numbers_of, record

from unilseg_jax.evaluation.judges.semantic import IGNORED, PartJudge, SemanticJudge
from unilseg_jax.evaluation.protocols import PROTOCOLS
from unilseg_jax.text.prompts import class_names

BOTH = tuple(PROTOCOLS.values())
SHAPE = (6, 7)
PASCAL = class_names("pascal_context59")
PARTS = class_names("part_imagenet")


def counted(predictions, truths, classes):
    """Returns the IoU of each class, NaN without a union, pixel by pixel."""
    pixels = [
        (int(found), int(wanted))
        for prediction, truth in zip(predictions, truths, strict=True)
        for found, wanted in zip(prediction.flat, truth.flat, strict=True)
        if wanted != IGNORED
    ]
    ious = []
    for label in range(classes):
        hits = sum(found == wanted == label for found, wanted in pixels)
        union = sum(label in pair for pair in pixels)
        ious.append(hits / union if union else math.nan)
    return ious


@pytest.fixture
def truths():
    """Two label maps of class numbers, with pixels that do not count."""
    rng = np.random.default_rng(0)
    return [rng.choice([0, 3, 7, 58, IGNORED], SHAPE) for _ in range(2)]


@pytest.fixture
def predictions(truths):
    """By (picture, resize): a label map of which most is right; the two ways of resizing differ."""
    rng = np.random.default_rng(1)
    return {
        (number, resize): np.where(rng.random(SHAPE) < 0.6, np.where(truth == IGNORED, 5, truth), rng.choice([3, 9]))
        for number, truth in enumerate(truths)
        for resize in ("stretch", "letterbox")
    }


@pytest.fixture
def judge(truths, predictions):
    records = []
    for number, truth in enumerate(truths):
        masks = [(PASCAL[label].label, truth == label) for label in np.unique(truth) if label != IGNORED]
        records.append(record(number, SHAPE, masks, [("some class", 0)]))
    planted = {key: (labels, np.full(SHAPE, 0.01)) for key, labels in predictions.items()}
    return SemanticJudge(Records(records), Planted(planted), BOTH, "pascal_context59")


def test_numbers_are_those_of_a_loop_over_pixels(judge, truths, predictions):
    numbers = numbers_of(judge)
    values = {}
    for protocol in BOTH:
        entry = numbers[protocol.name, "label map", None]
        ious = counted([predictions[number, protocol.resize] for number in range(2)], truths, 59)
        values[protocol.name] = entry["metrics"]["miou"]
        assert entry["metrics"]["miou"] == pytest.approx(np.nanmean(ious), abs=1e-12)
        assert entry["metrics"]["counted_classes"] == np.count_nonzero(~np.isnan(ious))
        by_name = [entry["groups"][name.phrase]["iou"] for name in PASCAL]
        np.testing.assert_allclose(by_name, ious, rtol=0, atol=1e-12)
        assert entry["passport"]["threshold"] is None, "a probability of 0.01 wins as well"
        assert entry["passport"]["vocabulary"] == 59
    assert values["paper"] != values["released"]


def test_every_picture_is_asked_for_every_class(judge):
    found_by(judge)
    phrases = tuple(f"all {name.phrase}" for name in PASCAL)
    assert judge.predictor.asked == [
        (number, resize, phrases) for number in range(2) for resize in ("stretch", "letterbox")
    ]


def test_what_is_predicted_where_nothing_is_labelled_does_not_matter(judge, truths):
    before = found_by(judge).rows["paper"]["pixels"]
    for (number, _), (labels, _) in judge.predictor.maps.items():
        labels[truths[number] == IGNORED] = 11
    np.testing.assert_array_equal(found_by(judge).rows["paper"]["pixels"], before)
    assert before.sum((0, 2))[1] == sum(np.count_nonzero(truth != IGNORED) for truth in truths)


def test_the_score_and_the_drawn_mask_are_of_the_largest_class(judge, truths, predictions):
    counts = np.bincount(truths[0][truths[0] != IGNORED], minlength=59)
    largest = int(counts.argmax())
    iou = counted([predictions[0, "stretch"]], [truths[0]], 59)[largest]
    drawn = judge.draw(0, 0)
    assert (drawn.kind, drawn.phrase) == (PASCAL[largest].phrase, f"all {PASCAL[largest].phrase}")
    assert drawn.score == found_by(judge).samples["score"][0] == pytest.approx(iou, abs=1e-12)
    np.testing.assert_array_equal(drawn.target, truths[0] == largest)
    assert not (drawn.prediction & (truths[0] == IGNORED)).any()


def test_a_picture_without_a_labelled_pixel_adds_nothing():
    planted = Planted({(0, one.resize): (np.zeros(SHAPE), np.ones(SHAPE)) for one in BOTH})
    judge = SemanticJudge(Records([record(0, SHAPE, [], [])]), planted, BOTH, "pascal_context59")
    assert found_by(judge).rows["paper"]["pixels"].sum() == 0
    assert np.isnan(numbers_of(judge)["paper", "label map", None]["metrics"]["miou"])


BACKGROUND = len(PARTS)
HEAD, TAIL, IGNORED_PART = box(SHAPE, 0, 2, 0, 7), box(SHAPE, 2, 4, 0, 7), box(SHAPE, 5, 6, 0, 7)  # 14, 14 and 7


@pytest.fixture
def parts():
    """A head and a tail on the background; the last row does not count."""
    labels = np.full(SHAPE, 2)
    labels[2:4] = 6
    probs = np.full(SHAPE, 0.2)
    probs[0], probs[1], probs[2] = 0.9, 0.5, 0.4  # of the head above both cuts or on the upper one; of the tail between
    probs[4, :3] = 0.8  # an invented head
    probs[5] = 0.9
    masks = [(PARTS[2].label, HEAD), (PARTS[6].label, TAIL), (IGNORED, IGNORED_PART)]
    source = Records([record(0, SHAPE, masks, [("the head", 0)])])
    return PartJudge(source, Planted({(0, one.resize): (labels, probs) for one in BOTH}), BOTH, "part_imagenet")


def test_a_pixel_whose_best_part_is_not_above_the_threshold_is_background(parts):
    numbers = numbers_of(parts)
    paper, released = (numbers[name, "label map", None] for name in ("paper", "released"))
    # Paper: the head has row 0 and the invented 3; the tail has nothing; the background rows 1 to 4 without these 3.
    head, tail, background = 7 / (14 + 3), 0, 4 / (7 + 7 + 14)
    assert paper["metrics"]["miou"] == pytest.approx((head + tail + background) / 3, abs=1e-12)
    assert paper["metrics"]["miou_without_background"] == pytest.approx((head + tail) / 2, abs=1e-12)
    assert paper["metrics"]["counted_classes"] == 3
    assert paper["groups"]["background"]["iou"] == pytest.approx(background, abs=1e-12)
    assert paper["groups"][PARTS[2].phrase]["iou"] == pytest.approx(head, abs=1e-12)
    assert (paper["passport"]["threshold"], released["passport"]["threshold"]) == (0.5, 0.35)
    # Released: rows 0 and 1 of the head, row 2 of the tail.
    assert released["metrics"]["miou"] == pytest.approx((14 / 17 + 7 / 14 + 4 / (7 + 7)) / 3, abs=1e-12)


def test_ignored_pixels_are_no_background(parts):
    pixels = found_by(parts).rows["paper"]["pixels"][0]
    assert pixels[1, BACKGROUND] == 7, "the row between the tail and the ignored one"
    assert pixels[1].sum() == 35


def test_a_picture_of_background_alone_is_drawn():
    planted = Planted({(0, one.resize): (np.zeros(SHAPE), np.zeros(SHAPE)) for one in BOTH})
    judge = PartJudge(Records([record(0, SHAPE, [], [])]), planted, BOTH, "part_imagenet")
    metrics = numbers_of(judge)["paper", "label map", None]["metrics"]
    assert metrics["miou"] == 1
    assert np.isnan(metrics["miou_without_background"])
    assert not judge.draw(0, 0).target.any()
