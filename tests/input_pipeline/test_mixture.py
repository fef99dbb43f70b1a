"""Mixtures: every object once per epoch, shares as weighed, and no phrase for a class that is there asked as absent."""

import collections
import itertools

import grain
import numpy as np
import pytest
from memory_records import SIDE, MemoryRecords, class_name, shown

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.mixture import Mixture, Part
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.transforms import make_stages
from unilseg_jax.input_pipeline.visits import Groups, ReadAbsent
from unilseg_jax.text.tokenizer import tokenize

WORDS = 14
TEXTS = [f"{word} {class_name(n)}" for word in ("all", "every") for n in range(26)] + [f"no {k}" for k in range(9)]
PHRASE_OF = {row.tobytes(): text for row, text in zip(tokenize(TEXTS, WORDS), TEXTS, strict=True)}


def three_sources():
    """Sources of different sizes; pictures with many objects, with one, and with none that can be learnt."""
    return [
        MemoryRecords(1, [3, 0, 1, 7, 2] * 4),
        MemoryRecords(2, [1] * 11, nothing=2, task="referring"),
        MemoryRecords(3, [0, 5, 0, 12], unknown=3, task="video"),
    ]


def mixture(sources, *, weights=None, prompts=1, seed=0, negatives=0.0):
    weights = weights or [0.0] * len(sources)
    parts = [
        Part(name=f"s{source.number}", source=source, weight=weight)
        for source, weight in zip(sources, weights, strict=True)
    ]
    return Mixture(parts, prompts=prompts, seed=seed, negatives=negatives)


def elements(mixed, count, *, prompts=1, first=0):
    """Returns `count` elements as they would be put into batches."""
    dataset = mixed.visits()
    for stage in make_stages(size=SIDE, prompts=prompts, word_len=WORDS, resize="stretch"):
        random = isinstance(stage, grain.transforms.RandomMap)
        dataset = dataset.random_map(stage) if random else dataset.map(stage)
    return [dataset[number] for number in range(first, first + count)]


def samples(found):
    return [sample for element in found for sample in shown(element, PHRASE_OF)]


@pytest.mark.parametrize("prompts", [1, 3, 8])
def test_an_epoch_has_every_object_of_every_source_once(prompts):
    sources = three_sources()
    wanted = sorted(map(str, itertools.chain(*(source.all_samples() for source in sources))))
    mixed = mixture(sources, prompts=prompts)
    visits = sum(size.visits for size in mixed.sizes().values())
    assert visits == sum(-(-int(count) // prompts) for source in sources for count in source.samples)
    epochs = [elements(mixed, visits, prompts=prompts, first=epoch * visits) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(map(str, samples(epoch))) == wanted
    assert len({tuple(map(str, samples(epoch))) for epoch in epochs}) == 3


def test_the_sources_are_mixed_within_an_epoch():
    sources = [MemoryRecords(1, [1] * 100), MemoryRecords(2, [1] * 100)]
    first = [source for source, _, _ in samples(elements(mixture(sources), 100))]
    assert 35 < first.count(1) < 65


def test_samples_of_a_picture_are_dealt_anew_each_epoch():
    mixed = mixture([MemoryRecords(1, [6])], prompts=2)
    deals = {
        frozenset(frozenset(shown(element, PHRASE_OF)) for element in elements(mixed, 3, prompts=2, first=3 * epoch))
        for epoch in range(12)
    }
    assert len(deals) > 4


def test_groups_of_a_picture_are_even():
    """Seven samples, at most three at a time, are 3 + 2 + 2."""
    groups = Groups(np.array([7, 0, 1], np.uint16), 3)
    found = [groups.locate(number, epoch=5, seed=0) for number in range(len(groups))]
    assert [(record, len(taken)) for record, taken in found] == [(0, 3), (0, 2), (0, 2), (2, 1)]
    assert sorted(itertools.chain(*(taken for _, taken in found[:3]))) == list(range(7))


def test_another_seed_gives_another_order():
    orders = {tuple(samples(elements(mixture(three_sources(), seed=seed), 20))) for seed in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize("prompts", [1, 3])
def test_weights_are_shares_of_the_objects(prompts):
    """Grain's shuffle is slow for a handful of elements, hence many pictures."""
    sources = [
        MemoryRecords(1, [3, 0, 1, 7, 2] * 200),
        MemoryRecords(2, [1] * 1000, nothing=2),
        MemoryRecords(3, [0, 5, 0, 12] * 100),
    ]
    weights = [5.0, 3.0, 2.0]
    mixed = mixture(sources, weights=weights, prompts=prompts)
    visits, counts, shares = mixed.visits(), collections.Counter(), collections.Counter()
    for number in range(4000):
        visit = visits[number]
        counts[visit.picture["source"]] += len(visit.samples)
        shares[visit.picture["source"]] += 1
    for source, weight in zip(sources, weights, strict=True):
        name = f"memory/{source.number}"
        assert counts[name] / counts.total() == pytest.approx(weight / 10, rel=0.02)
        assert shares[name] / 4000 == pytest.approx(mixed.shares()[f"s{source.number}"], rel=0.02)


def test_each_source_of_a_weighted_mixture_runs_through_epochs_of_its_own():
    sources = three_sources()
    found = samples(elements(mixture(sources, weights=[1.0, 2.0, 1.5]), 500))
    for source in sources:
        own = [sample for sample in found if sample[0] == source.number]
        size = len(source.all_samples())
        assert len(own) > 2 * size
        for first in (0, size):
            assert sorted(map(str, own[first : first + size])) == sorted(map(str, source.all_samples()))


def test_sources_of_equal_size_have_orders_of_their_own():
    sources = [MemoryRecords(1, [1] * 50), MemoryRecords(2, [1] * 50)]
    found = samples(elements(mixture(sources, weights=[1.0, 1.0]), 100))
    orders = [[picture for number, picture, _ in found if number == source] for source in (1, 2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_scenes_are_visited_picture_by_picture():
    scenes = Part(name="scenes", source=SceneSource(num_scenes=5, seed=0, size=64))
    records = Part(name="records", source=MemoryRecords(1, [2, 3]))
    mixed = Mixture([scenes, records], prompts=2, seed=0)
    assert {name: size.visits for name, size in mixed.sizes().items()} == {"scenes": 5, "records": 3}
    assert mixed.sizes()["scenes"].samples is None
    found = [mixed.visits()[number] for number in range(8)]
    names = [visit.picture.image_id if visit.samples is None else visit.picture["image_id"] for visit in found]
    assert sorted(names) == ["0", "1", "1", *(f"scene-0-{number}" for number in range(5))]


def test_the_lines_say_what_an_epoch_is():
    lines = mixture(three_sources(), prompts=3).lines()
    assert lines[0] == "training on s1: 20 pictures, 52 objects, 24 visits per epoch, 58.5% of all visits"


def test_the_visits_of_an_epoch_are_counted_where_all_sources_share_one():
    sources = partly_equal()
    visits = sum(size.visits for size in mixture(sources, prompts=3).sizes().values())
    assert mixture(sources, prompts=3).epoch_visits() == visits
    assert mixture(sources, prompts=3, negatives=0.5).epoch_visits() == 2 * visits
    assert mixture(sources, prompts=3, weights=[1.0, 1.0]).epoch_visits() == 0


# ---- Negatives -----------------------------------------------------------------------------------------


def partly_equal():
    """Pictures with some classes each; the last source is not annotated exhaustively."""
    rng = np.random.default_rng(0)
    drawn = [sorted(rng.choice(12, 4, replace=False).tolist()) for _ in range(20)]
    return [MemoryRecords(1, drawn), MemoryRecords(2, [[20], [21]] * 5, task="referring")]


class Walls:
    """One picture with a brick wall and grass, one with a wall and a tree."""

    task = "semantic"
    samples = np.array([2, 2], np.uint16)
    classes = (("brick wall", "grass"), ("wall", "tree"))

    def __len__(self):
        return 2

    def record(self, index):
        names = self.classes[index]
        return {
            "phrases": [f"all {name}" for name in names],
            "phrase_masks": [0, 1],
            "phrase_kinds": ["category"] * 2,
            "mask_categories": list(names),
        }


def test_negatives_never_name_a_class_that_includes_one_of_the_picture():
    read = ReadAbsent(source=Walls(), prompts=2, seed=0, hide=None)
    asked = [set(read.map_with_index(number, None).absent) for number in range(2)]
    assert asked == [{"all tree"}, {"all brick wall", "all grass"}]


def test_negatives_do_not_count_the_samples_of_all_pictures_each_time():
    class Counted(MemoryRecords):
        asked = 0

        @property
        def samples(self):
            self.asked += 1
            return self._samples

        @samples.setter
        def samples(self, value):
            self._samples = value

    source = Counted(1, [[1], [2], [3]])
    read = ReadAbsent(source=source, prompts=1, seed=0, hide=None)
    asked = source.asked
    assert [len(read.map_with_index(number, None).absent) for number in range(20)] == [1] * 20
    assert source.asked == asked


def test_negatives_never_name_a_class_that_the_picture_has():
    sources = partly_equal()
    found = elements(mixture(sources, prompts=3, negatives=0.4), 600, prompts=3)
    negatives = [element for element in found if not element["mask"].any()]
    assert len(negatives) / len(found) == pytest.approx(0.4, rel=0.02)
    asked = collections.Counter()
    for element in negatives:
        assert element["valid"].all()
        number, picture = element["image"][0, 0, 0], element["image"][0, 0, 1]
        assert number == 1, "a source without exhaustive labels gave a negative"
        phrases = [PHRASE_OF[row.tobytes()] for row in element["tokens"]]
        assert len(set(phrases)) == 3
        held = {class_name(n) for n in sources[0].classes[picture]}
        for phrase in phrases:
            name = phrase.split(maxsplit=1)[1]
            assert name not in held
            asked[name] += 1
    assert set(asked) == {class_name(n) for n in range(12)}, "of the classes of the same source, each"


@pytest.mark.parametrize("weights", [None, [1.0, 1.0]])
def test_negatives_take_nothing_from_an_epoch(weights):
    sources = partly_equal()
    mixed = mixture(sources, weights=weights, negatives=0.25)
    found = [sample for sample in samples(elements(mixed, 240)) if not isinstance(sample[2], str)]
    size = len(sources[0].all_samples())
    own = [sample for sample in found if sample[0] == 1][:size]
    assert sorted(own) == sorted(sources[0].all_samples())


def test_a_picture_with_every_class_is_asked_for_one_of_its_own():
    found = elements(mixture([MemoryRecords(1, [2, 2, 2])], prompts=2, negatives=0.5), 20, prompts=2)
    for element in found:
        assert element["valid"].any()
        assert element["mask"][element["valid"]].any(axis=(1, 2)).all()


# ---- What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, r"nothing to train on; name a data set in config\.input\.sources"),
        ([MemoryRecords(1, [0, 0])], {}, r"input\.sources\.s1 has nothing to train on: none of its 2 pictures"),
        ([MemoryRecords(1, [0], unknown=2)], {}, "with a known mask"),
        ([MemoryRecords(1, [])], {}, "none of its 0 pictures"),
        (
            [MemoryRecords(1, [1]), MemoryRecords(2, [1])],
            {"weights": [0.5, 0.0]},
            r"input\.sources\.s1 has a weight, input\.sources\.s2 has none",
        ),
        ([MemoryRecords(1, [3, 3], task="referring")], {"negatives": 0.1}, r"input\.negatives = 0\.1 needs a source"),
        ([MemoryRecords(1, [3, 0])], {"negatives": 0.1}, "at least 2 pictures"),
    ],
    ids=["no source", "no phrases", "no ground truth", "no record", "half weighed", "not exhaustive", "one picture"],
)
def test_what_cannot_be_mixed_is_refused_with_one_line(sources, options, message):
    with pytest.raises(UserError, match=message) as caught:
        mixture(sources, **options)
    assert "\n" not in str(caught.value)


def test_nothing_is_read_before_it_is_asked_for():
    sources = three_sources()
    dataset = mixture(sources, weights=[1.0, 2.0, 1.0], prompts=2).visits()
    assert len(dataset) > 10**9 * 1024
    assert [source.reads for source in sources] == [0, 0, 0]
    dataset[10**9 * 1024]
    assert sum(source.reads for source in sources) == 1
