"""Prepared data sets as sources, in this process and in others."""

import multiprocessing
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import grain
import numpy as np
import pytest
from denied_files import deny
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import sources
from unilseg_jax.input_pipeline.index import Index, write_index

SYNTHETIC = Path(__file__).resolve().parents[1] / "data" / "refer_synthetic.py"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with the prepared imitations of RefCOCO and RefCOCOg."""
    make_refer_folder = runpy.run_path(str(SYNTHETIC))["make_refer_folder"]
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("out")
    make_refer_folder(raw, "refcoco", "unc")
    make_refer_folder(raw, "refcocog", "umd")
    prepare.main(["refcoco", "--raw", str(raw), "--out", str(out)])
    return out


def test_source_gives_decoded_triplets(prepared):
    source = sources.open_source("refcoco", data_dir=prepared, split="val")
    assert len(source) == 1
    sample = source[0]
    assert sample.image_id == "COCO_train2014_000000310001"
    assert sample.phrases == ("left person", "the person on the left", "right car", "the car on the right")
    assert sample.mask_index == (0, 0, 1, 1)
    assert set(sample.kinds) == {"referring"}
    # Each object lies in its half of the picture.
    left, right = sample.masks[:, :, :64], sample.masks[:, :, 64:]
    assert [left[0].any(), right[0].any(), left[1].any(), right[1].any()] == [True, False, False, True]
    with pytest.raises(IndexError):
        source[1]


def test_name_selects_the_configuration(prepared):
    assert sources.open_source("refcoco/refcocog", data_dir=prepared, split="test").directory.parts[-2] == "refcocog"
    assert sources.open_source("refcoco", data_dir=prepared, split="testA").directory.parts[-2] == "refcoco"


def test_the_name_of_a_configuration_alone_says_whose_it_is(prepared):
    with pytest.raises(UserError, match=r"no prepared data set 'refcocog' .*; is refcoco/refcocog meant\?"):
        sources.open_source("refcocog", data_dir=prepared, split="test")


def read_first(source: sources.TripletSource) -> float:
    return float(source[0].image.mean())


def test_source_reads_in_a_worker_process(prepared):
    source = sources.open_source("refcoco", data_dir=prepared, split="train")
    wanted = read_first(source)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_first, (source,)) == wanted


def test_pickled_source_is_small_and_unopened(prepared):
    source = sources.open_source("refcoco", data_dir=prepared, split="train")
    assert source._opened is not None
    data = pickle.dumps(source)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert copy._opened is None
    np.testing.assert_array_equal(copy[0].masks, source[0].masks)


def test_grain_takes_the_source(prepared):
    source = sources.open_source("refcoco", data_dir=prepared, split="train")
    dataset = grain.MapDataset.source(source).map(lambda sample: sample.phrases[0]).repeat(2)
    assert list(dataset) == ["left person", "left person"]


def test_records_are_those_that_the_library_reads(prepared):
    import tensorflow_datasets as tfds

    source = sources.open_source("refcoco", data_dir=prepared, split="train")
    builder = tfds.builder_from_directory(str(source.directory))
    wanted = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})[0]
    found = source.record(0)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_record_of_a_picture_alone_has_empty_lists(tmp_path):
    (tmp_path / "raw").mkdir()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "raw" / "one.png")
    arguments = ["image_folder", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    prepare.main(arguments)
    (split,) = {path.name.split("-")[1].split(".")[0] for path in (tmp_path / "out").rglob("index-*.npz")}
    source = sources.open_source("image_folder", data_dir=tmp_path / "out", split=split)
    record = source.record(0)
    assert (record["masks"], record["phrases"], record["mask_boxes"].shape) == ([], [], (0, 4))
    assert source.samples.tolist() == [0]
    assert source[0].masks.shape == (0, 40, 50)


@pytest.mark.parametrize("version", [2, None])
def test_a_record_of_another_schema_version_is_one_clear_line(version):
    """It has none of the fields of this version."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["picture"].bytes_list.value.append(b"")
    if version:
        example.features.feature["schema_version"].int64_list.value.append(version)
    with pytest.raises(UserError, match=f"the record is of schema version {version}, this code reads version 1"):
        sources.parse_record(example.SerializeToString())


def test_the_version_is_checked_before_any_other_field():
    """Another version may have a list where this one has a single value."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["authors"].bytes_list.SetInParent()
    example.features.feature["schema_version"].int64_list.value.append(2)
    with pytest.raises(UserError, match="the record is of schema version 2, this code reads version 1"):
        sources.parse_record(example.SerializeToString())


def test_missing_data_set_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"unilseg_jax\.prepare refcoco --config refcocog --raw DIR --out") as caught:
        sources.open_source("refcoco/refcocog", data_dir=tmp_path / "nowhere", split="val")
    assert "\n" not in str(caught.value)


def test_missing_split_is_named(prepared):
    with pytest.raises(UserError, match="no split 'testC'; it has train, val, testA, testB"):
        sources.open_source("refcoco", data_dir=prepared, split="testC")


def test_unfinished_conversion_is_not_opened(prepared, tmp_path):
    finished = prepared / "refcoco" / "refcoco" / "1.0.0"
    unfinished = tmp_path / "refcoco" / "refcoco" / "incomplete.ABC_1.0.0"
    unfinished.mkdir(parents=True)
    for file in finished.iterdir():
        (unfinished / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="no prepared data set"):
        sources.open_source("refcoco", data_dir=tmp_path, split="train")


def test_folder_of_another_schema_version_is_refused(prepared, tmp_path):
    other = tmp_path / "refcoco" / "refcoco" / "2.0.0"
    other.mkdir(parents=True)
    (other / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="another schema version"):
        sources.open_source("refcoco", data_dir=tmp_path, split="train")


def test_import_loads_neither_tfds_nor_tensorflow():
    code = (
        "import sys, unilseg_jax.input_pipeline.loader; "
        "assert not {'tensorflow', 'tensorflow_datasets', 'torch'} & set(sys.modules); "
        "import unilseg_jax.prepare; "
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SYNTHETIC.parents[2])


# ---- Some of the records, and the index beside them ----------------------------------------------------


@pytest.fixture(scope="module")
def more(tmp_path_factory) -> Path:
    """A folder with a prepared imitation of RefCOCO of four pictures per split."""
    out = tmp_path_factory.mktemp("more")
    raw = tmp_path_factory.mktemp("synthetic")
    prepare.main(["refcoco", "--synthetic", "4", "--config", "refcoco", "--raw", str(raw), "--out", str(out)])
    return out


@pytest.fixture
def several(more, tmp_path) -> sources.TripletSource:
    """A split of several records, in a folder of its own."""
    shutil.copytree(more / "refcoco", tmp_path / "refcoco")
    return sources.open_source("refcoco", data_dir=tmp_path, split="train")


def test_a_selection_is_a_source_of_these_records(several):
    ids = [several[number].image_id for number in range(len(several))]
    keep = np.ones(len(several), bool)
    keep[0] = keep[-1] = False
    chosen = several.select(keep)
    assert [chosen[number].image_id for number in range(len(chosen))] == ids[1:-1]
    assert [column.tolist() for column in chosen.index] == [column[1:-1].tolist() for column in several.index]
    assert len(several) == len(ids), "the whole source stays as it was"
    with pytest.raises(IndexError):
        chosen.record(len(chosen))


def test_the_index_of_a_selection_is_made_once(several):
    keep = np.arange(len(several)) > 0
    for chosen in (several.select(keep), several.select(keep)):
        assert chosen.index is chosen.index
        assert chosen.samples.tolist() == several.samples[1:].tolist()
        second = chosen.select(keep[:-1])
        assert second.index is second.index
        assert second.samples.tolist() == several.samples[2:].tolist()


def test_selections_follow_one_another(several):
    first = several.select(np.arange(len(several)) > 0)
    second = first.select(np.arange(len(first)) > 0)
    assert second[0].image_id == several[2].image_id
    with pytest.raises(ValueError, match="choices for"):
        first.select(np.ones(len(several), bool))


def test_a_selection_is_sent_to_workers(several):
    chosen = several.select(np.arange(len(several)) == 1)
    assert pickle.loads(pickle.dumps(chosen))[0].image_id == several[1].image_id


def test_samples_are_the_objects_that_phrases_name(several):
    assert several.samples.tolist() == [len(several[number].masks) for number in range(len(several))]
    assert several.task == "referring"


def test_a_set_without_an_index_is_read_through_once(several, capsys):
    file = several.directory / "index-train.npz"
    wanted = [column.tolist() for column in several.index]
    file.unlink()
    again = sources.TripletSource(several.directory, "train", len(several))
    assert [column.tolist() for column in again.index] == wanted
    assert "index of train" in capsys.readouterr().err
    assert file.exists()


# ---- Damaged files ---------------------------------------------------------------------------------------


def spoil(number, content):
    """Overwrites the middle of a file's used part, or all of it."""

    def harm(path):
        whole = path.read_bytes()
        path.write_bytes(content if number is None else whole[:number] + content + whole[number + len(content) :])

    return harm


def replace(old, new):
    return lambda path: path.write_text(re.sub(old, new, path.read_text(), count=1))


DAMAGE = [
    ("*-train.array_record*", spoil(200, bytes(100)), r"train\.array_record-00000-of-00001' is damaged \(Corrupted"),
    ("*-train.array_record*", spoil(None, b""), r"train\.array_record-00000-of-00001' is damaged"),
    ("*-train.array_record*", Path.unlink, r"train\.array_record-00000-of-00001' is damaged"),
    ("dataset_info.json", spoil(None, b"{}"), r"dataset_info\.json' is damaged \(Invalid version"),
    ("dataset_info.json", spoil(None, b'{"na'), r"dataset_info\.json' is damaged"),
    ("dataset_info.json", replace(r'"shardLengths": \[\s*"4"', '"shardLengths": ["0"'), "damaged .train has 0 records"),
    ("dataset_info.json", replace("array_record", "tfrecord"), r"train'\) cannot be opened"),
    ("features.json", spoil(None, b"{}"), r"features\.json' is damaged \(Python class name must contain a dot"),
    ("features.json", spoil(None, b""), r"features\.json' is damaged"),
    ("features.json", Path.unlink, r"features\.json' is damaged"),
]


@pytest.mark.parametrize(("pattern", "harm", "message"), DAMAGE)
def test_a_damaged_file_is_named_and_what_to_do(more, tmp_path, pattern, harm, message):
    shutil.copytree(more / "refcoco", tmp_path / "refcoco")
    (path,) = tmp_path.rglob(pattern)
    harm(path)
    with pytest.raises(UserError, match=message + ".*; prepare the data set again, with --overwrite") as caught:
        sources.open_source("refcoco", data_dir=tmp_path, split="train")
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_not_to_be_prepared_again(several, monkeypatch):
    class Reader:
        def __getitem__(self, number):
            raise RuntimeError("open() failed: Permission denied; opening a file")  # as ArrayRecord says it

    source = sources.TripletSource(several.directory, "train", len(several))
    monkeypatch.setattr(source, "_opened", Reader())
    with pytest.raises(UserError) as caught:
        source.record(0)
    message = str(caught.value)
    assert message.endswith("-00001' cannot be read: Permission denied; allow the access or name another path")
    assert "--overwrite" not in message


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "index-train.npz"])
def test_a_description_that_may_not_be_read_is_not_to_be_prepared_again(several, monkeypatch, name):
    deny(monkeypatch, name)
    source = sources.TripletSource(several.directory, "train", len(several))
    with pytest.raises(UserError, match=f"{name}' cannot be read: Permission denied; allow the access") as caught:
        _ = source.record(0), source.index
    assert "--overwrite" not in str(caught.value)


def test_damage_that_shows_later_is_named_too(several):
    """The description says more records than there are, so the first one is sound."""
    longer = sources.TripletSource(several.directory, "train", len(several) + 1)
    (several.directory / "index-train.npz").unlink()
    replace(r'"shardLengths": \[\s*"4"', '"shardLengths": ["5"')(several.directory / "dataset_info.json")
    for read in (lambda: longer.record(4), lambda: longer[4], lambda: longer.samples):
        with pytest.raises(UserError, match=r"record 4 of .* is not read: .*00000-of-00001' is damaged"):
            read()


def test_an_index_of_other_records_is_refused(several):
    index = several.index
    write_index(several.directory, "train", Index(*(column[:-1] for column in index)))
    other = sources.TripletSource(several.directory, "train", len(several))
    with pytest.raises(UserError, match=r"entries for .* records; prepare the data set again"):
        _ = other.samples
