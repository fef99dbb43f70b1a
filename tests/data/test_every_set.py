"""Every data set of the repository: its stand-in is written and converted, and its records keep the promises."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from unilseg_jax import prepare
from unilseg_jax.input_pipeline.catalogue import BUILDERS
from unilseg_jax.input_pipeline.conversion import read_report
from unilseg_jax.input_pipeline.index import fingerprint, read_index
from unilseg_jax.input_pipeline.loader import training_batches
from unilseg_jax.input_pipeline.mixture import Mixture, Part
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.transforms import make_stages
from unilseg_jax.input_pipeline.triplet import UNKNOWN, decode_record

NAMES = sorted(path.parent.name for path in BUILDERS.glob("*/*_dataset_builder.py"))
COUNT = 2
# Sets of the paper (training, benchmarks) and the sources for the annotation engine.
WANTED = {
    *("refcoco", "grefcoco", "coco_stuff", "ref_youtube_vos", "part_imagenet", "lip", "salient"),
    *("ade20k", "pascal_context", "ref_davis17", "objects365", "sa1b", "image_folder"),
}


def test_no_set_of_the_paper_is_missing():
    assert set(NAMES) >= WANTED


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of all sets, prepared by the command from their stand-ins."""
    root = tmp_path_factory.mktemp("stand_ins")
    for name in NAMES:
        prepare.main([name, f"--synthetic={COUNT}", f"--raw={root / 'raw' / name}", f"--out={root / 'out'}"])
    return root / "out"


@pytest.fixture(scope="module", params=NAMES)
def prepared(request, out):
    """(name, folder of all sets, configurations) of a set."""
    return request.param, out, sorted(path.parent.name for path in (out / request.param).glob("*/1.0.0"))


def splits(prepared):
    name, out, configs = prepared
    for config in configs:
        counts, _ = read_report(out / name / config / "1.0.0")
        for split, sizes in counts.items():
            yield open_source(f"{name}/{config}", data_dir=out, split=split), sizes


def test_every_configuration_is_converted_and_nothing_skipped(prepared):
    name, _, configs = prepared
    known = sorted(config.name for config in prepare.load_builder(name).BUILDER_CONFIGS)
    # A folder is either ImageNet's or any other; the stand-in is ImageNet's.
    assert configs == (["imagenet"] if name == "image_folder" else known)
    for source, sizes in splits(prepared):
        assert len(source) == sizes.pictures >= COUNT, source
        assert sizes.skipped == 0, source


def test_every_record_decodes_to_masks_of_its_picture(prepared):
    for source, _ in splits(prepared):
        for number in range(len(source)):
            record = source.record(number)
            triplet = decode_record(record)
            assert triplet.masks.shape[1:] == triplet.image.shape[:2]
            assert triplet.masks.any(axis=(1, 2)).all()
            assert len(triplet.phrases) == len(triplet.mask_index) == len(triplet.kinds)
            assert all(UNKNOWN <= index < len(triplet.masks) for index in triplet.mask_index)
            assert all(phrase.strip() for phrase in triplet.phrases)


def meant(record):
    """Returns what each phrase means whose truth is known: a mask, an absent object, or nothing that has a label."""
    rows = enumerate(zip(record["phrase_masks"], record["phrase_objects"], strict=True))
    return [
        ("mask", mask) if mask >= 0 else ("absent object", label) if label >= 0 else ("phrase", number)
        for number, (mask, label) in rows
        if mask != UNKNOWN
    ]


def test_the_index_tells_what_the_records_hold(prepared):
    name, out, configs = prepared
    for config in configs:
        directory = out / name / config / "1.0.0"
        for split in read_report(directory)[0]:
            source, index = open_source(f"{name}/{config}", data_dir=out, split=split), read_index(directory, split)
            records = [source.record(number) for number in range(len(source))]
            np.testing.assert_array_equal(index.coco_id, [record["coco_id"] for record in records])
            np.testing.assert_array_equal(index.fingerprint, [fingerprint(record["image"]) for record in records])
            wanted = [len(set(meant(record))) for record in records]
            np.testing.assert_array_equal(index.samples, wanted)


def training_parts(out, **options):
    """Returns the part of every split that can be learnt from."""
    parts = []
    for directory in sorted(out.glob("*/*/1.0.0")):
        for split in read_report(directory)[0]:
            name = f"{directory.parts[-3]}/{directory.parts[-2]}"
            source = open_source(name, data_dir=out, split=split)
            if source.samples.any():
                parts.append(Part(name=f"{name}:{split}", source=source, **options))
    return parts


def objects(visits):
    """Counts the samples of visits: picture and number."""
    seen = collections.Counter()
    for visit in visits:
        record = visit.picture
        picture = bytes(record["source"]).decode(), bytes(record["image"]), bytes(record["image_id"])
        seen.update((*picture, sample) for sample in visit.samples)
    return seen


@pytest.mark.parametrize(("prompts", "epochs"), [(1, 1), (3, 2)])
def test_an_epoch_of_all_sets_has_every_object_once(out, prompts, epochs):
    parts = training_parts(out)
    assert {part.source.task for part in parts} == {"referring", "semantic", "part", "salient", "video"}
    mixture = Mixture(parts, prompts=prompts, seed=0)
    length = sum(size.visits for size in mixture.sizes().values())
    # Some splits of a set hold the same pictures (a test split and its parts), so an object may be in several sources.
    wanted = collections.Counter()
    for part in parts:
        for number in range(len(part.source)):
            record = part.source.record(number)
            picture = bytes(record["source"]).decode(), bytes(record["image"]), bytes(record["image_id"])
            wanted.update((*picture, sample) for sample in range(part.source.samples[number]))
    visits = iter(mixture.visits())
    for _ in range(epochs):
        assert objects(itertools.islice(visits, length)) == wanted


def test_shares_of_sets_of_all_tasks_are_their_weights(out):
    by_task = {part.source.task: part for part in training_parts(out)}
    parts = [dataclasses.replace(part, weight=1.0 + number) for number, part in enumerate(by_task.values())]
    visits, count = iter(Mixture(parts, prompts=1, seed=0).visits()), 1500
    found = collections.Counter(bytes(visit.picture["task"]).decode() for visit in itertools.islice(visits, count))
    whole = sum(part.weight for part in parts)
    for task, part in zip(by_task, parts, strict=True):
        assert found[task] / count == pytest.approx(part.weight / whole, rel=0.02), task


@pytest.fixture(scope="module")
def batches_from(out):
    """Returns batches of the mixture of all sets from a step on, of one of several hosts."""
    visits = Mixture(training_parts(out), prompts=2, seed=0).visits()
    stages = make_stages(size=32, prompts=2, word_len=12, resize="letterbox")

    def batches(start, count, host=0, hosts=1):
        iterator = training_batches(
            visits, stages, batch_size=4, start=start, threads=1, workers=0, host=host, hosts=hosts
        )
        return list(itertools.islice(iterator, count))

    return batches


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, key)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_see_what_one_sees(batches_from, hosts):
    shares = [batches_from(3, 10, host, hosts) for host in range(hosts)]
    for whole, *parts in zip(batches_from(3, 10), *shares, strict=True):
        assert_equal({key: np.concatenate([part[key] for part in parts]) for key in whole}, whole)


def test_a_start_at_20_random_steps_gives_the_same_batches(batches_from):
    whole = batches_from(0, 200)
    for step in np.random.default_rng(0).integers(0, 200, 20).tolist():
        assert_equal(batches_from(step, 1)[0], whole[step])
