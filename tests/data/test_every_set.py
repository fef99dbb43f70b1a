"""Every data set of the repository: its stand-in is written and converted, and its records keep the promises."""

import numpy as np
import pytest

from unilseg_jax import prepare
from unilseg_jax.input_pipeline.catalogue import BUILDERS
from unilseg_jax.input_pipeline.conversion import read_report
from unilseg_jax.input_pipeline.index import fingerprint, read_index
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import NOTHING, UNKNOWN, decode_record

NAMES = sorted(path.parent.name for path in BUILDERS.glob("*/*_dataset_builder.py"))
COUNT = 2
# Sets of the paper (training, benchmarks) and the sources for the annotation engine.
WANTED = {
    *("refcoco", "grefcoco", "coco_stuff", "ref_youtube_vos", "part_imagenet", "lip", "salient"),
    *("ade20k", "pascal_context", "ref_davis17", "objects365", "sa1b", "image_folder"),
}


def test_no_set_of_the_paper_is_missing():
    assert set(NAMES) >= WANTED


@pytest.fixture(scope="module", params=NAMES)
def prepared(request, tmp_path_factory):
    """(name, folder of prepared sets, configurations) of a set whose stand-in was converted by the command."""
    root = tmp_path_factory.mktemp(request.param)
    out = root / "out"
    prepare.main([request.param, f"--synthetic={COUNT}", f"--raw={root / 'raw'}", f"--out={out}"])
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


def test_the_index_tells_what_the_records_hold(prepared):
    name, out, configs = prepared
    for config in configs:
        directory = out / name / config / "1.0.0"
        for split in read_report(directory)[0]:
            source, index = open_source(f"{name}/{config}", data_dir=out, split=split), read_index(directory, split)
            records = [source.record(number) for number in range(len(source))]
            np.testing.assert_array_equal(index.coco_id, [record["coco_id"] for record in records])
            np.testing.assert_array_equal(index.fingerprint, [fingerprint(record["image"]) for record in records])
            named = [[int(mask) for mask in record["phrase_masks"]] for record in records]
            wanted = [len({mask for mask in masks if mask >= 0}) + masks.count(NOTHING) for masks in named]
            np.testing.assert_array_equal(index.samples, wanted)
