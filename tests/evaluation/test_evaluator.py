"""Evaluation with predictors whose every answer is known, and the control with phrases of other pictures."""

import math

import numpy as np
import pytest

from unilseg_jax.evaluation.evaluator import Evaluator, ShuffledPhrases
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.ops.geometry import RESIZES
from unilseg_jax.text.tokenizer import tokenize

WORD_LEN = 14


def picture(number, boxes, *, size=(32, 32)) -> Triplet:
    """Returns a picture with a phrase per box: (kind, top, bottom, left, right), or (kind,) for nothing."""
    masks, mask_index = [np.zeros(size, np.uint8)], []
    for _, *box in boxes:
        mask_index.append(len(masks) if box else -1)
        if box:
            top, bottom, left, right = box
            masks.append(np.zeros(size, np.uint8))
            masks[-1][top:bottom, left:right] = 1
    rng = np.random.default_rng(number)
    return Triplet(
        image_id=f"picture-{number}",
        image=rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        masks=np.stack(masks),
        phrases=tuple(f"phrase {index} of picture {number}" for index in range(len(boxes))),
        mask_index=tuple(mask_index),
        kinds=tuple(kind for kind, *_ in boxes),
    )


PICTURES = [
    picture(0, [("category", 0, 16, 0, 16)]),
    picture(1, [("attribute", 8, 16, 8, 16), ("category", 0, 32, 0, 8), ("nothing",)]),
    picture(2, [("attribute", 0, 4, 0, 4), ("nothing",)]),
]
"""Areas: category 256 and 256, attribute 64 and 16, of 1024 pixels each."""


def evaluator(pictures=PICTURES, **changes) -> Evaluator:
    options = {"batch_size": 3, "prompts": 2, "resize": "stretch", "threshold": 0.5, **changes}
    return Evaluator(source=pictures, size=32, word_len=WORD_LEN, **options)


class Predictor:
    """Answers by the phrase's tokens; keeps the shapes it was asked with.

    Args:
        answer: (triplet, phrase's number) to a mask at the picture's size.
        pictures: what may be asked.
        resize: how the picture came into the square.
    """

    def __init__(self, answer, pictures=PICTURES, resize="stretch"):
        self.asked = []
        self._answers = {}
        for triplet in pictures:
            for number, tokens in enumerate(tokenize(list(triplet.phrases), WORD_LEN)):
                mask = answer(triplet, number).astype(np.uint8)
                square = RESIZES[resize].mask_to_square(mask, 32).astype(np.float32)
                self._answers[tokens.tobytes()] = 0.1 + 0.8 * square

    def __call__(self, images, tokens):
        self.asked.append((images.shape, tokens.shape))
        return np.stack([[self._answers[row.tobytes()] for row in rows] for rows in tokens])


def truth(triplet, number):
    return triplet.mask(number)


def nothing(triplet, number):
    return np.zeros(triplet.image.shape[:2])


def everything(triplet, number):
    return np.ones(triplet.image.shape[:2])


def rounded(results, key):
    return {kind: row[key] for kind, row in {**results["kinds"], "all": results["all"]}.items()}


def test_the_truth_is_perfect_but_for_phrases_that_name_nothing():
    results, _ = evaluator().run(Predictor(truth))
    assert rounded(results, "oiou") == pytest.approx(
        {"attribute": 1, "category": 1, "nothing": math.nan, "all": 1}, nan_ok=True
    )
    assert rounded(results, "miou") == pytest.approx({"attribute": 1, "category": 1, "nothing": 0, "all": 4 / 6})
    assert rounded(results, "nothing_found") == pytest.approx(
        {"attribute": 0, "category": 0, "nothing": 1, "all": 2 / 6}
    )
    assert rounded(results, "count") == {"attribute": 2, "category": 2, "nothing": 2, "all": 6}
    assert results["kinds"]["attribute"]["pr_at_90"] == 1


def test_everything_counts_what_it_covers():
    results, _ = evaluator().run(Predictor(everything))
    assert rounded(results, "oiou") == pytest.approx(
        {"attribute": 80 / 2048, "category": 512 / 2048, "nothing": 0, "all": 592 / 6144}
    )
    assert rounded(results, "miou") == pytest.approx(
        {"attribute": (64 + 16) / 2 / 1024, "category": 0.25, "nothing": 0, "all": 592 / 6144}
    )
    assert set(rounded(results, "nothing_found").values()) == {0}


def test_nothing_finds_nothing():
    results, _ = evaluator().run(Predictor(nothing))
    assert rounded(results, "oiou") == pytest.approx(
        {"attribute": 0, "category": 0, "nothing": math.nan, "all": 0}, nan_ok=True
    )
    assert set(rounded(results, "miou").values()) == {0}
    assert set(rounded(results, "nothing_found").values()) == {1}


@pytest.mark.parametrize("threshold", [0.05, 0.95])
def test_the_threshold_counts(threshold):
    """The predictor answers 0.1 outside and 0.9 inside."""
    results, _ = evaluator(threshold=threshold).run(Predictor(truth))
    assert results["all"]["nothing_found"] == (threshold > 0.9)
    assert results["all"]["oiou"] == pytest.approx(592 / 6144 if threshold < 0.1 else 0)


@pytest.mark.parametrize(("batch_size", "prompts"), [(3, 2), (1, 1), (4, 1), (8, 8), (2, 3)])
def test_chunks_and_batches_are_filled_up_and_change_nothing(batch_size, prompts):
    predictor = Predictor(truth)
    results, _ = evaluator(batch_size=batch_size, prompts=prompts).run(predictor)
    chunks = sum(-(-len(triplet.phrases) // prompts) for triplet in PICTURES)
    shapes = ((batch_size, 32, 32, 3), (batch_size, prompts, WORD_LEN))
    assert predictor.asked == [shapes] * -(-chunks // batch_size)
    whole, _ = evaluator().run(Predictor(truth))
    np.testing.assert_equal(results, whole)


def test_only_the_first_pictures_are_judged():
    results, _ = evaluator(max_images=2).run(Predictor(truth))
    assert rounded(results, "count") == {"attribute": 1, "category": 2, "nothing": 1, "all": 4}


@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_examples_are_all_phrases_of_the_first_pictures(keep):
    _, examples = evaluator().run(Predictor(truth), keep=keep)
    wanted = [(triplet.image_id, number) for triplet in PICTURES[:keep] for number in range(len(triplet.phrases))]
    assert [(example.triplet.image_id, example.phrase) for example in examples] == wanted
    for example in examples:
        target = example.triplet.mask(example.phrase) > 0
        np.testing.assert_array_equal(example.prediction, target)
        assert example.iou == float(target.any())


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(48, 96), (80, 40), (20, 24)])
def test_pictures_of_other_sizes_are_judged_at_their_own(resize, size):
    height, width = size
    halves = [("category", 0, height, 0, width // 2), ("attribute", height // 2, height, 0, width), ("nothing",)]
    pictures = [picture(7, halves, size=size), picture(8, halves[::-1], size=size)]
    predictor = Predictor(truth, pictures, resize)
    results, examples = evaluator(pictures, resize=resize).run(predictor, keep=2)
    assert all(example.prediction.shape == size for example in examples)
    assert rounded(results, "count") == {"attribute": 2, "category": 2, "nothing": 2, "all": 6}
    assert results["all"]["oiou"] > 0.85
    assert min(results["kinds"][kind]["miou"] for kind in ("attribute", "category")) > 0.85
    assert results["kinds"]["nothing"]["nothing_found"] == 1


def test_another_resize_than_the_predictors_is_noticed():
    """So that the test above can fail."""
    pictures = [picture(7, [("category", 0, 24, 0, 96)], size=(48, 96))]
    results, _ = evaluator(pictures, resize="stretch").run(Predictor(truth, pictures, "letterbox"))
    assert results["all"]["oiou"] < 0.7


@pytest.fixture(scope="module")
def scenes():
    return SceneSource(num_scenes=12, seed=0, size=64)


@pytest.fixture(scope="module")
def shuffled(scenes):
    return ShuffledPhrases(source=scenes, seed=0)


def test_shuffled_pictures_keep_all_but_their_phrases(scenes, shuffled):
    assert len(shuffled) == len(scenes)
    for index, own in enumerate(scenes):
        other = shuffled[index]
        assert (other.image_id, other.mask_index, other.kinds) == (own.image_id, own.mask_index, own.kinds)
        np.testing.assert_array_equal(other.image, own.image)
        np.testing.assert_array_equal(other.masks, own.masks)
        assert len(other.phrases) == len(own.phrases)


def test_no_shuffled_picture_is_asked_with_its_own_phrases():
    """Phrases name their picture, so each answer tells whose it was."""
    for count in (2, 3, 7):
        pictures = [picture(number, [("attribute", 0, 4, 0, 4)] * (1 + number % 4)) for number in range(count)]
        for seed in range(5):
            source = ShuffledPhrases(source=pictures, seed=seed)
            partners = []
            for number in range(count):
                named = {phrase.rsplit(" ", 1)[1] for phrase in source[number].phrases}
                assert len(named) == 1
                partners.append(int(named.pop()))
            assert sorted(partners) == list(range(count))
            assert all(partner != number for number, partner in enumerate(partners))


def test_a_partners_phrases_are_used_as_seldom_as_possible():
    pictures = [picture(0, [("attribute", 0, 4, 0, 4)] * 5), picture(1, [("attribute", 0, 4, 0, 4)] * 2)]
    source = ShuffledPhrases(source=pictures, seed=0)
    counts = sorted(source[0].phrases.count(phrase) for phrase in pictures[1].phrases)
    assert counts == [2, 3]
    assert len(set(source[1].phrases)) == 2


def test_shuffling_is_the_same_each_time_and_depends_on_the_seed(scenes, shuffled):
    again = ShuffledPhrases(source=scenes, seed=0)
    other = ShuffledPhrases(source=scenes, seed=1)
    # Read in another order, too: nothing depends on what was read before.
    assert [again[i].phrases for i in reversed(range(12))] == [shuffled[i].phrases for i in reversed(range(12))]
    assert [other[i].phrases for i in range(12)] != [shuffled[i].phrases for i in range(12)]


def test_who_knows_the_phrases_falls_when_they_are_shuffled():
    """The predictor answers each phrase with the mask it had in its own picture."""
    corners = [(0, 16, 0, 16), (16, 32, 16, 32), (0, 16, 16, 32), (16, 32, 0, 16)]
    pictures = [picture(number, [("attribute", *corner)]) for number, corner in enumerate(corners)]
    honest = evaluator(pictures)
    predictor = Predictor(truth, pictures)
    assert honest.run(predictor)[0]["all"]["oiou"] == pytest.approx(1)
    deaf = honest.with_source(ShuffledPhrases(source=pictures, seed=0))
    assert (deaf.batch_size, deaf.threshold) == (honest.batch_size, honest.threshold)
    assert deaf.run(predictor)[0]["all"]["oiou"] == 0
