"""Batches for training: the position is the step, and no picture is lost or preferred."""

import collections
import itertools

import numpy as np
import pytest
from ml_collections import ConfigDict

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.loader import MakeExample, draw_phrases, make_source, training_batches
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.text.tokenizer import tokenize

EXAMPLE = MakeExample(size=32, prompts=3, word_len=14, resize="stretch")
KINDS = ("attribute",) * 10 + ("relation", "nothing")


def picture(number, *, kinds=KINDS, size=(8, 8)) -> Triplet:
    """Returns a picture of one grey value, its number; its last phrase names nothing, each other a row of pixels."""
    masks = np.zeros((len(kinds), *size), np.uint8)
    for row in range(len(kinds) - 1):
        masks[row, row % size[0]] = 1
    return Triplet(
        image_id=str(number),
        image=np.full((*size, 3), number, np.uint8),
        masks=masks,
        phrases=tuple(f"thing {index} of {number}" for index in range(len(kinds))),
        mask_index=(*range(len(kinds) - 1), -1),
        kinds=kinds,
    )


class Pictures:
    """A source of numbered pictures."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return picture(int(index))


SCENES = SceneSource(num_scenes=7, seed=0, size=64)


def batches(count, *, source=SCENES, example=EXAMPLE, batch_size=2, seed=0, start=0, threads=1, workers=0):
    """Returns the first `count` batches."""
    iterator = training_batches(
        source, example, batch_size=batch_size, seed=seed, start=start, threads=threads, workers=workers
    )
    return list(itertools.islice(iterator, count))


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def numbers(found):
    return [int(image[0, 0, 0]) for batch in found for image in batch["image"]]


@pytest.fixture(scope="module")
def wanted():
    """Batches of steps 0 to 9, which span almost three epochs."""
    return batches(10)


def test_a_batch_has_the_shapes_that_the_step_takes(wanted):
    for batch in wanted:
        assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
            "image": ((2, 32, 32, 3), "uint8"),
            "tokens": ((2, 3, 14), "int32"),
            "mask": ((2, 3, 32, 32), "uint8"),
            "valid": ((2, 3), "bool"),
        }
        assert set(np.unique(batch["mask"])) <= {0, 1}


@pytest.mark.parametrize("start", [1, 3, 4, 9])
def test_a_start_at_a_step_is_that_many_batches_skipped(wanted, start):
    assert_same(batches(10 - start, start=start), wanted[start:])


@pytest.mark.parametrize("threads", [0, 4])
def test_threads_do_not_change_the_batches(wanted, threads):
    assert_same(batches(10, threads=threads), wanted)


@pytest.mark.slow
def test_worker_processes_do_not_change_the_batches(wanted):
    assert_same(batches(10, workers=2), wanted)


def test_another_seed_gives_other_batches(wanted):
    other = batches(10, seed=1)
    assert any((a["image"] != b["image"]).any() for a, b in zip(wanted, other, strict=True))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 10])
def test_every_picture_comes_once_per_epoch_whatever_the_batch(batch_size):
    """The epochs follow one another without a gap: a batch may hold the end of one and the start of the next."""
    drawn = numbers(batches(-(-21 // batch_size), source=Pictures(7), batch_size=batch_size))
    for epoch in range(3):
        assert sorted(drawn[7 * epoch : 7 * epoch + 7]) == list(range(7))


def test_each_epoch_has_an_order_and_draws_of_its_own():
    found = batches(6, source=Pictures(20), batch_size=10)
    epochs = [numbers(found[2 * epoch : 2 * epoch + 2]) for epoch in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(epoch != sorted(epoch) for epoch in epochs)
    draws = collections.defaultdict(set)
    for number, tokens in zip(
        itertools.chain(*epochs), np.concatenate([batch["tokens"] for batch in found]), strict=True
    ):
        draws[number].add(tokens.tobytes())
    assert np.mean([len(seen) for seen in draws.values()]) > 2


def test_tokens_and_masks_belong_together():
    source = Pictures(5)
    example = MakeExample(size=8, prompts=6, word_len=14, resize="stretch")
    for batch in batches(5, source=source, example=example):
        for image, tokens, masks in zip(batch["image"], batch["tokens"], batch["mask"], strict=True):
            triplet = source[image[0, 0, 0]]
            phrases = [row.tobytes() for row in tokenize(list(triplet.phrases), 14)]
            for row, mask in zip(tokens, masks, strict=True):
                np.testing.assert_array_equal(mask, triplet.mask(phrases.index(row.tobytes())))


def test_letterboxed_masks_stay_with_their_pictures():
    """A picture twice as wide as high leaves a quarter above and below free of any mask."""
    triplet = picture(0, kinds=("category", "nothing"), size=(8, 16))
    triplet.masks[0] = 1
    example = MakeExample(size=32, prompts=2, word_len=14, resize="letterbox")
    result = example.random_map(triplet, np.random.default_rng(0))
    full = result["mask"][result["mask"].any(axis=(1, 2))]
    assert full.shape[0] == 1
    # Up to the last columns: the corners of the outer pixels are mapped on one another.
    assert full[0, 10:22, :28].all()
    assert not full[0, :7].any()
    assert not full[0, 25:].any()


def test_phrases_are_drawn_evenly_over_kinds():
    """One of ten attributes, the relation and the phrase for nothing come equally often."""
    rng, counts, attributes = np.random.default_rng(0), collections.Counter(), collections.Counter()
    for _ in range(3000):
        ((number,), valid) = draw_phrases(picture(0), 1, rng)
        assert valid.tolist() == [True]
        counts[KINDS[number]] += 1
        attributes[number] += 1
    assert all(900 < count < 1100 for count in counts.values())
    assert len(counts) == 3
    assert all(60 < attributes[number] < 140 for number in range(10))


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_comes_before_any_comes_twice(seed):
    drawn, valid = draw_phrases(picture(0), 5, np.random.default_rng(seed))
    assert valid.all()
    assert len(set(drawn)) == 5
    assert {KINDS[number] for number in drawn[:3]} == set(KINDS)
    assert [KINDS[number] for number in drawn[3:]] == ["attribute"] * 2


@pytest.mark.parametrize("seed", range(3))
def test_repeats_fill_up_and_are_marked(seed):
    triplet = picture(0, kinds=("attribute", "nothing"))
    drawn, valid = draw_phrases(triplet, 5, np.random.default_rng(seed))
    assert valid.tolist() == [True, True, False, False, False]
    assert sorted(drawn[:2]) == [0, 1]
    assert drawn[2:] == [drawn[0], drawn[1], drawn[0]]


def test_an_empty_source_is_refused():
    with pytest.raises(UserError, match=r"holds no picture; check input\.source"):
        batches(1, source=Pictures(0))


def test_a_source_is_made_of_its_description():
    source = make_source({"name": "scenes", "num_scenes": 5, "seed": 3, "size": 64})
    assert source == SceneSource(num_scenes=5, seed=3, size=64)


def test_a_source_is_made_of_a_config_as_it_stands():
    assert make_source(ConfigDict({"name": "scenes", "num_scenes": 5, "seed": 3, "size": 64})).num_scenes == 5


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "scenes", "num_scenes": 5, "seed": 3, "wheels": 4}, "'scenes'.*wheels"),
        ({"name": "scenes", "seed": 3}, "'scenes'.*num_scenes"),
        ({"name": "scenes", "num_scenes": 0, "seed": 3}, "at least 1"),
        ({"name": "refcoco", "num_scenes": 5}, "'refcoco'.*num_scenes"),
        ({"name": "refcoco", "data_dir": "absent", "split": "train"}, "no prepared data set 'refcoco' in 'absent'"),
    ],
    ids=["surplus key", "missing key", "out of range", "keys of another", "no data"],
)
def test_a_description_that_fits_nothing_is_refused(description, message):
    with pytest.raises(UserError, match=message):
        make_source(description)
