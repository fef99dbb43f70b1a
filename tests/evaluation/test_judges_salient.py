"""The most salient object: the grey map and the mask, and truths of several masks."""

import numpy as np
import pytest
from planted_maps import Planted, Records, box, found_by, numbers_of, record

from unilseg_jax.evaluation.judges.salient import SalientJudge
from unilseg_jax.evaluation.protocols import PROTOCOLS
from unilseg_jax.input_pipeline.triplet import NOTHING
from unilseg_jax.text.prompts import SALIENT

BOTH = tuple(PROTOCOLS.values())
SHAPE = (10, 10)
LEFT, RIGHT = box(SHAPE, 0, 4, 0, 5), box(SHAPE, 0, 4, 5, 8)  # 20 and 12 pixels


def judge_of(levels, masks, phrases):
    probs = np.zeros(SHAPE)
    for level, mask in levels:
        probs[mask] = level
    planted = Planted({(0, one.resize, SALIENT): probs for one in BOTH})
    return SalientJudge(Records([record(0, SHAPE, masks, phrases)]), planted, BOTH)


@pytest.fixture
def judge():
    """The left object is sure, the right one between the two cuts, and beside them 8 pixels are invented."""
    levels = [(1.0, LEFT), (0.4, RIGHT), (0.8, box(SHAPE, 8, 10, 0, 4))]
    return judge_of(levels, [LEFT, RIGHT], [(SALIENT, 0), (SALIENT, 1)])


def f_measure(hits, found, wanted):
    precision, recall = hits / found, hits / wanted
    return 1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0


def test_the_truth_is_all_masks_together(judge):
    numbers = numbers_of(judge)
    assert len(numbers) == 4
    # Of 32 pixels; those of the right one are missed above a cut of 0.5.
    paper, released = (numbers[name, "mask", None]["metrics"] for name in ("paper", "released"))
    assert paper["mae"] == pytest.approx((12 + 8) / 100, abs=1e-12)
    assert released["mae"] == pytest.approx(8 / 100, abs=1e-12)
    assert paper["f_adaptive"] == pytest.approx(f_measure(20, 28, 32), abs=1e-12)
    assert released["f_adaptive"] == pytest.approx(f_measure(32, 40, 32), abs=1e-12)
    # At the threshold 0 everything is foreground.
    everything = f_measure(32, 100, 32)
    assert paper["f_mean"] == pytest.approx((255 * f_measure(20, 28, 32) + everything) / 256, abs=1e-12)
    assert released["f_max"] == pytest.approx(f_measure(32, 40, 32), abs=1e-12)


def test_the_grey_map_is_not_cut(judge):
    numbers = numbers_of(judge)
    assert {key[1] for key in numbers} == {"soft map", "mask"}
    for name in ("paper", "released"):
        entry = numbers[name, "soft map", None]
        # Grey levels are rounded: 0.4 is 102 of 255.
        assert entry["metrics"]["mae"] == pytest.approx((12 * (1 - 102 / 255) + 8 * 204 / 255) / 100, abs=1e-12)
        # Levels 255, 204, 102 and 0 are reached at 51, 102, 102 and 1 of the thresholds 255 to 0.
        steps = [(51, (20, 20)), (102, (20, 28)), (102, (32, 40)), (1, (32, 100))]
        curve = sum(many * f_measure(hits, found, 32) for many, (hits, found) in steps) / 256
        assert entry["metrics"]["f_mean"] == pytest.approx(curve, abs=1e-12)
        assert entry["passport"]["threshold"] is None
    assert numbers["released", "mask", None]["passport"]["threshold"] == 0.35


def test_the_score_is_the_iou_of_the_mask_and_is_drawn(judge):
    assert found_by(judge).samples["score"].tolist() == [20 / 40]
    drawn = judge.draw(0, 0)
    assert (drawn.score, drawn.phrase) == (20 / 40, SALIENT)
    np.testing.assert_array_equal(drawn.target, LEFT | RIGHT)
    assert drawn.prediction.sum() == 28


def test_a_picture_without_a_salient_object_is_counted():
    judge = judge_of([(0.9, LEFT)], [], [(SALIENT, NOTHING)])
    metrics = numbers_of(judge)["paper", "mask", None]["metrics"]
    assert (metrics["mae"], metrics["f_max"], metrics["count"]) == (0.2, 0, 1)
    assert not judge.draw(0, 0).target.any()
