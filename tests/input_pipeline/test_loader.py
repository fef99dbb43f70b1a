"""Batches for training: the position is the step, whatever the threads, processes and hosts."""

import collections
import itertools

import numpy as np
import pytest
from memory_records import SIDE, MemoryRecords
from ml_collections import ConfigDict

from unilseg_jax import prepare
from unilseg_jax.config import scenes_source, training_source
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.loader import make_parts, make_source, training_batches
from unilseg_jax.input_pipeline.mixture import Mixture, Part
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.transforms import make_stages
from unilseg_jax.input_pipeline.triplet import Triplet

STAGES = make_stages(size=32, prompts=3, word_len=14, resize="stretch")
SMALL_STAGES = make_stages(size=SIDE, prompts=2, word_len=14, resize="stretch")


class Pictures:
    """A source of numbered pictures, each of one grey value."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return Triplet(
            image_id=str(index),
            image=np.full((8, 8, 3), index, np.uint8),
            masks=np.ones((1, 8, 8), np.uint8),
            phrases=tuple(f"thing {number} of {index}" for number in range(5)),
            mask_index=(0,) * 5,
            kinds=("attribute",) * 5,
        )


SCENES = SceneSource(num_scenes=7, seed=0, size=64)


def visits_of(source, *, prompts=3, seed=0):
    return Mixture([Part(name="only", source=source)], prompts=prompts, seed=seed).visits()


def batches(
    count, *, source=SCENES, stages=STAGES, batch_size=2, seed=0, start=0, threads=1, workers=0, host=0, hosts=1
):
    """Returns the first `count` batches."""
    iterator = training_batches(
        visits_of(source, seed=seed) if not hasattr(source, "seed_everything") else source.seed_everything(seed),
        stages,
        batch_size=batch_size,
        start=start,
        threads=threads,
        workers=workers,
        host=host,
        hosts=hosts,
    )
    return list(itertools.islice(iterator, count))


class MixedSources:
    """A mixture with everything that is random: weights, groups, negatives, hidden patches, mirror images."""

    def seed_everything(self, seed):
        parts = [
            Part(name="a", source=MemoryRecords(1, [3, 1, 4, 2] * 4), weight=3.0, hide_and_seek=True),
            Part(name="b", source=MemoryRecords(2, [2, 5, 0, 1] * 3, nothing=1, score=0.5), weight=1.0),
        ]
        return Mixture(parts, prompts=2, seed=seed, negatives=0.2).visits()


MIXED = MixedSources()
MIXED_STAGES = make_stages(size=SIDE, prompts=2, word_len=14, resize="stretch", flip=0.5, hide_grid=4)


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


@pytest.fixture(scope="module")
def mixed():
    """Batches of steps 0 to 29 of a mixture."""
    return batches(30, source=MIXED, stages=MIXED_STAGES, batch_size=4)


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


def test_a_mixture_resumes_at_any_step(mixed):
    for start in np.random.default_rng(0).permutation(28)[:20].tolist():
        assert_same(batches(2, source=MIXED, stages=MIXED_STAGES, batch_size=4, start=start), mixed[start : start + 2])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_batches_of_one(mixed, hosts):
    parts = [
        batches(30, source=MIXED, stages=MIXED_STAGES, batch_size=4, host=host, hosts=hosts) for host in range(hosts)
    ]
    whole = [
        {name: np.concatenate([part[name] for part in rows]) for name in rows[0]} for rows in zip(*parts, strict=True)
    ]
    assert_same(whole, mixed)


def test_a_run_may_go_on_with_another_number_of_hosts(mixed):
    rows = [
        batches(5, source=MIXED, stages=MIXED_STAGES, batch_size=4, start=17, host=host, hosts=2) for host in range(2)
    ]
    assert_same([{name: batch[name][:2] for name in batch} for batch in mixed[17:22]], rows[0])
    assert_same([{name: batch[name][2:] for name in batch} for batch in mixed[17:22]], rows[1])


def test_a_batch_that_does_not_divide_among_hosts_is_refused():
    with pytest.raises(UserError, match=r"input\.batch_size 6 does not divide among 4 hosts"):
        batches(1, batch_size=6, hosts=4)


@pytest.mark.parametrize("threads", [0, 4])
def test_threads_do_not_change_the_batches(wanted, mixed, threads):
    assert_same(batches(10, threads=threads), wanted)
    assert_same(batches(30, source=MIXED, stages=MIXED_STAGES, batch_size=4, threads=threads), mixed)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "threads"), [(12, 1), (12, 4), (10, 3)])
def test_rows_lie_where_they_belong_however_many_make_a_batch(mixed, batch_size, threads):
    found = batches(3, source=MIXED, stages=MIXED_STAGES, batch_size=batch_size, threads=threads)
    for name in mixed[0]:
        rows = np.concatenate([batch[name] for batch in mixed])
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in found]), rows[: 3 * batch_size])


@pytest.mark.parametrize("workers", [1, 3])
def test_worker_processes_do_not_change_the_batches(wanted, workers):
    """Three workers do not divide a batch of two."""
    assert_same(batches(10, workers=workers), wanted)


@pytest.fixture
def on_disk(tmp_path):
    """Visits of two prepared splits without their first records, with negatives; patches of one are hidden."""
    prepare.main(["ade20k", "--synthetic=4", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")])
    parts = []
    for split, hide in (("train", None), ("val", True)):
        source = open_source("ade20k", data_dir=tmp_path / "out", split=split)
        keep = np.arange(len(source)) > 0
        parts.append(Part(name=split, source=source.select(keep), hide_and_seek=hide))
    return Mixture(parts, prompts=2, seed=0, negatives=0.3).visits()


@pytest.mark.slow
def test_worker_processes_read_the_same_records_from_disk(on_disk):
    stages = make_stages(size=32, prompts=2, word_len=14, resize="stretch", flip=0.5, hide_grid=4)
    here, there = (
        list(itertools.islice(training_batches(on_disk, stages, batch_size=4, start=3, threads=1, workers=workers), 12))
        for workers in (0, 2)
    )
    assert_same(there, here)
    empty = [~batch["mask"].any(axis=(1, 2, 3)) for batch in here]
    assert 0 < np.concatenate(empty).mean() < 1, "negatives and others"


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


def test_a_seek_reads_no_more_than_the_batch():
    source = MemoryRecords(1, [1] * 40)
    (batch,) = batches(1, source=source, stages=SMALL_STAGES, batch_size=4, start=10**9, threads=0)
    assert source.reads == 4
    assert batch["image"].shape[0] == 4


# ---- The table of sources ------------------------------------------------------------------------------


def test_a_source_is_made_of_its_description():
    source = make_source({"name": "scenes", "num_scenes": 5, "seed": 3, "size": 64})
    assert source == SceneSource(num_scenes=5, seed=3, size=64)


def test_a_source_is_made_of_a_config_as_it_stands():
    assert make_source(ConfigDict({"name": "scenes", "num_scenes": 5, "seed": 3, "size": 64})).num_scenes == 5


def test_the_table_of_sources_says_how_each_is_trained_on():
    scenes = scenes_source(num_scenes=5, seed=3, size=64)
    table = ConfigDict({"b": training_source(scenes, weight=2.0, hide_and_seek=True), "a": training_source(scenes)})
    parts = {part.name: part for part in make_parts(table)}
    assert parts["b"] == Part(
        name="b", source=SceneSource(num_scenes=5, seed=3, size=64), weight=2.0, hide_and_seek=True
    )
    assert (parts["a"].weight, parts["a"].hide_and_seek) == (0.0, None)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "scenes", "num_scenes": 5, "seed": 3, "wheels": 4}, "'scenes'.*wheels"),
        ({"name": "scenes", "seed": 3}, "'scenes'.*num_scenes"),
        ({"name": "scenes", "num_scenes": 0, "seed": 3}, "at least 1"),
        (
            {"name": "refcoco", "num_scenes": 5},
            "'refcoco'.*without data_dir, .*with num_scenes.*wanted are name, data_d",
        ),
        ({"name": "scene", "num_scenes": 5, "seed": 3}, "no source is called 'scene'; is 'scenes' meant"),
        (
            {"name": "refcok", "data_dir": "absent", "split": "train"},
            "no source is called 'refcok'; is 'refcoco' meant",
        ),
        ({"name": "photographs", "num_scenes": 5}, "'photographs'; there are scenes, ade20k, coco, "),
        ({"num_scenes": 5, "seed": 3}, "no source is called ''; there are scenes, "),
        ({"name": "refcoco", "data_dir": "absent", "split": "train"}, "no prepared data set 'refcoco' in 'absent'"),
    ],
    ids=[
        "surplus key",
        "missing key",
        "out of range",
        "keys of another",
        "misspelt",
        "misspelt set",
        "none such",
        "no name",
        "no data",
    ],
)
def test_a_description_that_fits_nothing_is_refused(description, message):
    with pytest.raises(UserError, match=message) as caught:
        make_source(description)
    assert "open_source" not in str(caught.value)


def test_a_prepared_set_without_a_builder_and_the_name_of_a_configuration_are_left_to_the_folder(tmp_path):
    (tmp_path / "ours" / "half").mkdir(parents=True)
    for name in ("ours", "half"):
        with pytest.raises(UserError, match=f"no prepared data set '{name}'"):
            make_source({"name": name, "data_dir": str(tmp_path), "split": "train"})
