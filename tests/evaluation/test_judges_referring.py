"""Referring expressions, with and without a target: both protocols, first sentences, and what counts as nothing."""

import numpy as np
import pytest
from planted_maps import Planted, Records, box, found_by, numbers_of, record

from unilseg_jax.evaluation.judges.referring import GeneralizedJudge, ReferringJudge
from unilseg_jax.evaluation.presence import PresenceModel
from unilseg_jax.evaluation.protocols import PROTOCOLS
from unilseg_jax.input_pipeline.triplet import NOTHING, UNKNOWN

BOTH = tuple(PROTOCOLS.values())
SHAPE = (8, 10)
CUP, HAT = box(SHAPE, 0, 4, 0, 5), box(SHAPE, 6, 8, 0, 10)  # 20 pixels each


def planted(**levels):
    """Returns a map of boxes, given as name=(level, box), the later over the earlier."""
    found = np.full(SHAPE, 0.1)
    for level, mask in levels.values():
        found[mask] = level
    return found


@pytest.fixture
def judge():
    """Two pictures: the cup is named twice; of "a dog" nobody knows the truth, and a cat is not there."""
    exact = planted(all=(0.9, CUP))
    # Half of the cup above both cuts, half between them or on the upper one.
    half = planted(above=(0.9, box(SHAPE, 0, 2, 0, 5)), between=(0.4, box(SHAPE, 2, 3, 0, 5)))
    half[3, :5] = 0.5
    wide = planted(all=(0.6, box(SHAPE, 0, 4, 0, 10)))
    nothing = np.full(SHAPE, 0.35)  # on the lower cut: not above it
    maps = {
        (0, "stretch", "the cup"): half,
        (0, "letterbox", "the cup"): half,
        (0, "stretch", "a mug"): exact,
        (0, "letterbox", "a mug"): wide,
        (0, "stretch", "a hat"): nothing,
        (0, "letterbox", "a hat"): nothing,
        (1, "stretch", "a cat"): nothing,
        (1, "letterbox", "a cat"): exact,
    }
    phrases = [("the cup", 0), ("a hat", 1), ("a dog", UNKNOWN), ("a mug", 0)]
    records = [record(0, SHAPE, [CUP, HAT], phrases), record(1, SHAPE, [], [("a cat", NOTHING)])]
    records.append(record(2, SHAPE, [], [("a dog", UNKNOWN)]))
    return ReferringJudge(Records(records), Planted(maps), BOTH)


def test_both_protocols_are_counted_in_one_pass(judge):
    found = found_by(judge)
    assert found.samples["phrase"].tolist() == ["the cup", "a hat", "a mug", "a cat"]
    assert found.samples["image"].tolist() == ["picture 0"] * 3 + ["picture 1"]
    assert found.rows["paper"]["intersection"].tolist() == [10, 0, 20, 0]
    assert found.rows["paper"]["union"].tolist() == [20, 20, 20, 0]
    assert found.rows["released"]["intersection"].tolist() == [20, 0, 20, 0]
    assert found.rows["released"]["union"].tolist() == [20, 20, 40, 20]
    numbers = numbers_of(judge)
    paper, released = (numbers[name, "mask", "all"]["metrics"] for name in ("paper", "released"))
    assert (paper["oiou"], paper["miou"], paper["pr_at_50"]) == (30 / 60, (0.5 + 0 + 1 + 0) / 4, 2 / 4)
    assert (released["oiou"], released["miou"]) == (40 / 100, (1 + 0 + 0.5 + 0) / 4)
    assert numbers["paper", "mask", "all"]["passport"]["threshold"] == 0.5
    assert numbers["released", "mask", "all"]["passport"]["resize"] == "letterbox"


def test_only_the_first_sentence_of_an_object_counts_where_that_is_the_rule(judge):
    assert found_by(judge).samples["first"].tolist() == [True, True, False, True]
    numbers = numbers_of(judge)
    first = numbers["paper", "mask", "first"]
    assert (first["metrics"]["oiou"], first["metrics"]["miou"], first["metrics"]["count"]) == (10 / 40, 0.5 / 3, 3)
    assert first["passport"]["phrases"] == 3
    assert numbers["paper", "mask", "all"]["passport"]["phrases"] == 4


def test_what_has_no_published_truth_is_not_asked_for(judge):
    found_by(judge)
    assert {phrase for _, _, phrase in judge.predictor.asked} == {"the cup", "a hat", "a mug", "a cat"}
    empty = judge.judge(2)
    assert len(empty.samples["number"]) == len(empty.rows["paper"]["union"]) == 0


def test_scores_to_choose_by_leave_out_what_is_rightly_empty(judge):
    np.testing.assert_array_equal(found_by(judge).samples["score"], [0.5, 0, 1, np.nan])


def test_a_drawn_sample_is_what_was_judged(judge):
    drawn = judge.draw(0, 2)  # the number among the judged ones
    assert (drawn.phrase, drawn.score, drawn.image_id) == ("a mug", 1.0, "picture 0")
    np.testing.assert_array_equal(drawn.prediction, CUP)
    np.testing.assert_array_equal(drawn.target, CUP)


def test_one_protocol_alone(judge):
    alone = ReferringJudge(judge.source, judge.predictor, [PROTOCOLS["released"]])
    assert found_by(alone).rows.keys() == {"released"}
    assert found_by(alone).samples["score"].tolist() == [1, 0, 0.5, 0]


WIDE = (20, 20)
TARGET = box(WIDE, 0, 10, 0, 10)  # 100 pixels
SMALL_TARGET = box(WIDE, 0, 6, 0, 10)  # 60


def on(level, mask):
    return np.where(mask, level, 0.0)


@pytest.fixture
def generalized():
    """Six expressions in one picture; the masks are the same by both protocols."""
    maps = {
        "found": on(0.9, box(WIDE, 0, 10, 2, 12)),  # 80 of 100, 20 beside it
        "denied": on(0.9, box(WIDE, 0, 3, 5, 15)),  # 30 pixels, 15 of them on the small target
        "missed": on(0.0, TARGET),
        "a speck": on(0.9, box(WIDE, 12, 16, 0, 10)),  # 40 pixels where nothing is
        "absent": on(0.0, TARGET),
        "a ghost": on(0.7, box(WIDE, 10, 18, 0, 8)),  # 64 pixels where nothing is
        "unknown": on(0.9, TARGET),
    }
    masks = {"found": 0, "denied": 1, "missed": 0, "a speck": NOTHING, "absent": NOTHING, "a ghost": NOTHING}
    phrases = [(text, masks.get(text, UNKNOWN)) for text in maps]
    source = Records([record(0, WIDE, [TARGET, SMALL_TARGET], phrases)])
    planted = Planted({(0, resize, text): one for text, one in maps.items() for resize in ("stretch", "letterbox")})
    # Something is there if the highest probability is above 0.8.
    row = np.array([-40.0, 50.0, 0.0, 0.0, 0.0])
    presence = PresenceModel(
        coefficients={one.name: row for one in BOTH}, fitted_on="grefcoco:train", weights_sha256="0"
    )
    return GeneralizedJudge(source, planted, BOTH, presence=presence)


RULES = {
    # found; denied, emptied; missed; the speck and the absent one are right; the ghost is not.
    "mask, empty under 50 px": {
        "giou": (80 / 120 + 0 + 0 + 1 + 1 + 0) / 6,
        "ciou": 80 / (120 + 60 + 100 + 0 + 0 + 64),
        "n_acc": 2 / 3,
        "t_acc": 1 / 3,
    },
    # Only a mask without a pixel is nothing.
    "mask": {
        "giou": (80 / 120 + 15 / 75 + 0 + 0 + 1 + 0) / 6,
        "ciou": (80 + 15) / (120 + 75 + 100 + 40 + 0 + 64),
        "n_acc": 1 / 3,
        "t_acc": 2 / 3,
    },
    # The score sees through the ghost alone.
    "mask, presence score": {
        "giou": (80 / 120 + 15 / 75 + 0 + 0 + 1 + 1) / 6,
        "ciou": (80 + 15) / (120 + 75 + 100 + 40 + 0 + 0),
        "n_acc": 2 / 3,
        "t_acc": 2 / 3,
    },
}


@pytest.mark.parametrize("rule", RULES)
def test_three_rules_of_what_counts_as_nothing(generalized, rule):
    numbers = numbers_of(generalized)
    for protocol in ("paper", "released"):
        metrics = numbers[protocol, rule, "all"]["metrics"]
        assert metrics["count"] == 6
        for name, wanted in RULES[rule].items():
            assert metrics[name] == pytest.approx(wanted, abs=1e-12), name
        assert metrics["pr_at_70"] == 0  # 0.667 is below it


def test_without_a_presence_score_there_are_two_rules(generalized):
    plain = GeneralizedJudge(generalized.source, generalized.predictor, BOTH)
    assert {one.prediction for one in plain.variants} == {"mask, empty under 50 px", "mask"}
    assert plain.variants[0].rows == "paper/50px"


def test_a_drawn_expression_has_the_score_that_it_was_chosen_by(generalized):
    scores = found_by(generalized).samples["score"].tolist()
    assert scores == [80 / 120, 0, 0, 1, 1, 0]
    drawn = [generalized.draw(0, number) for number in range(6)]
    assert [one.score for one in drawn] == scores
    assert [one.prediction.sum() for one in drawn] == [100, 0, 0, 0, 0, 64]


def test_statistics_are_kept_to_fit_a_score_on(generalized):
    samples = found_by(generalized).samples
    assert samples["present"].tolist() == [True] * 3 + [False] * 3
    np.testing.assert_allclose(samples["paper/highest"], [0.9, 0.9, 0, 0.9, 0, 0.7], atol=1e-7)
    np.testing.assert_allclose(np.exp(samples["released/log_area"]) * 400, [100, 30, 0, 40, 0, 64], atol=1e-3)


def test_a_picture_whose_truths_are_all_unknown_adds_nothing(generalized):
    source = Records([record(0, WIDE, [], [("unknown", UNKNOWN)])])
    judge = GeneralizedJudge(source, generalized.predictor, BOTH, presence=generalized.presence)
    found = judge.judge(0)
    assert {len(column) for column in found.samples.values()} == {0}
    assert {len(column) for rows in found.rows.values() for column in rows.values()} == {0}
