"""The choice of what is worth a look."""

import itertools
import math
import random

import numpy as np
import pytest

from unilseg_jax.evaluation.judged import Judged, choose


def judged(**changes):
    fields = {
        "image_id": "a",
        "phrase": "the dog",
        "kind": "",
        "image": np.zeros((2, 3, 3), np.uint8),
        "prediction": np.zeros((2, 3), bool),
        "target": np.zeros((2, 3), bool),
        "score": 0.5,
    }
    return Judged(**{**fields, **changes})


def test_best_median_and_worst_are_chosen():
    scores = [(key / 10, key) for key in range(11)]
    assert choose(scores, 2) == {"best": [10, 9], "median": [6, 5], "worst": [0, 1]}
    assert choose(scores, 3) == {"best": [10, 9, 8], "median": [6, 5, 4], "worst": [0, 1, 2]}


def test_neither_order_nor_ties_change_the_choice():
    scores = [(score, f"picture {number}") for number, score in enumerate([0.0] * 9 + [0.5] * 9 + [1.0] * 9)]
    first = choose(scores, 4)
    shuffled = random.Random(0)
    for _ in range(20):
        shuffled.shuffle(scores)
        assert choose(scores, 4) == first
    assert choose(itertools.chain(scores[20:], scores[:20]), 4) == first


@pytest.mark.parametrize("count", range(14))
def test_few_samples_are_shared_out_without_repeating_one(count):
    groups = choose([(-float(key), key) for key in range(count)], 3)
    keys = list(itertools.chain(*groups.values()))
    assert len(set(keys)) == len(keys)
    assert len(keys) == min(count, 9)
    if count >= 3:
        assert all(groups.values())
    if count >= 2:
        assert groups["best"][0] == 0
        assert groups["worst"][0] == count - 1


def test_samples_without_a_score_are_left_out():
    groups = choose([(math.nan, "a"), (0.2, "b"), (0.9, "c"), (math.nan, "d"), (0.5, "e")], 5)
    assert groups == {"best": ["c"], "median": ["e"], "worst": ["b"]}


def test_a_sample_that_came_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        choose([(0.1, "a"), (0.1, "a")], 1)
    with pytest.raises(ValueError, match="k is 0"):
        choose([(0.1, "a")], 0)


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\), \(2, 3\)"):
        judged(prediction=np.zeros((2, 4), bool))


def test_a_soft_map_is_cut_at_one_half():
    soft = judged(prediction=np.array([[0, 127, 128], [255, 1, 254]], np.uint8))
    assert soft.is_soft
    assert soft.mask.tolist() == [[False, False, True], [True, False, True]]
    assert not judged().is_soft
