"""Conversion of REFER's files: counts, refusals, and what is skipped."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from denied_files import deny
from refer_synthetic import ReferFolder, drawn_mask, make_refer_folder, rectangle

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.conversion import SplitCounts, differences, read_report
from unilseg_jax.input_pipeline.sources import open_source

ROOT = Path(__file__).resolve().parents[2]
SPLIT_SIZES = {"pictures": 1, "objects": 2, "phrases": 4}


@pytest.fixture
def raw(tmp_path) -> ReferFolder:
    return make_refer_folder(tmp_path / "raw")


def convert(raw: ReferFolder, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.root.parent / "out"
    prepare.main(["refcoco", "--raw", str(raw.root), "--out", str(out), "--max-skipped=1", *options])
    return out / "refcoco" / raw.folder / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_every_split_is_counted_and_nothing_skipped(raw):
    counts, published = read_report(convert(raw))
    assert counts == {split: SplitCounts(**SPLIT_SIZES) for split in ("train", "val", "testA", "testB")}
    assert published["val"] == SplitCounts(pictures=1500, objects=3811, phrases=10834)
    assert skipped(convert(raw)) == []


@pytest.mark.parametrize("folder", ["refcoco+", "refcocog"])
def test_other_sets_have_their_own_splits(tmp_path, folder):
    raw = make_refer_folder(tmp_path / "raw", folder, "umd" if folder == "refcocog" else "unc")
    counts, _ = read_report(convert(raw))
    assert list(counts) == (["train", "val", "test"] if folder == "refcocog" else ["train", "val", "testA", "testB"])
    assert len(open_source(f"refcoco/{folder}", data_dir=raw.root.parent / "out", split="val")) == 1


def test_record_keeps_category_ids_and_source(raw):
    convert(raw)
    source = open_source("refcoco", data_dir=raw.root.parent / "out", split="train")
    record = source.record(0)
    assert record["image"] == raw.picture(0).read_bytes()
    assert record["coco_id"] == raw.instances["images"][0]["id"]
    assert list(record["mask_ids"]) == [raw.refs[0]["ann_id"], raw.refs[1]["ann_id"]]
    assert list(record["mask_categories"]) == [b"person", b"car"]
    assert record["source"] == b"refcoco/refcoco"
    assert source[0].phrases == ("left person", "the person on the left", "right car", "the car on the right")
    assert source[0].mask_index == (0, 0, 1, 1)
    assert source[0].phrase_ids == ("0", "1", "2", "3")


def test_mask_is_the_union_of_polygons_that_overlap(raw):
    convert(raw)
    sample = open_source("refcoco", data_dir=raw.root.parent / "out", split="val")[0]
    for mask, annotation in zip(sample.masks, raw.instances["annotations"][3:], strict=False):
        parts = [drawn_mask([polygon]) for polygon in annotation["segmentation"]]
        assert (parts[0] & parts[1]).any()
        np.testing.assert_array_equal(mask, parts[0] | parts[1])
        # The drawn objects are bright, what is behind them is dark.
        bright = sample.image.min(axis=2) > 110
        assert (bright & (mask == 1)).sum() > 0.95 * mask.sum()


def test_conversion_and_reading_need_no_tensorflow(raw):
    code = (
        "import sys; from unilseg_jax import prepare; "
        "from unilseg_jax.input_pipeline.sources import open_source; "
        f"prepare.main(['refcoco', '--raw', {str(raw.root)!r}, '--out', {str(raw.root.parent / 'out')!r}]); "
        f"open_source('refcoco', data_dir={str(raw.root.parent / 'out')!r}, split='val'); "
        "assert 'tensorflow_datasets' in sys.modules; "
        "sys.exit('tensorflow' in sys.modules or 'torch' in sys.modules or 'jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


class Dangerous:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_refs_that_may_not_be_read_are_not_called_broken(raw, monkeypatch):
    deny(monkeypatch, raw.refs_file.name)
    with pytest.raises(UserError, match=r"\.p' is not read: Permission denied; allow the access or name another path"):
        convert(raw)


def test_pickle_naming_a_class_is_refused(raw):
    raw.refs_file.write_bytes(pickle.dumps([Dangerous()], protocol=2))
    command = [sys.executable, "-m", "unilseg_jax.prepare", "refcoco"]
    command += ["--raw", str(raw.root), "--out", str(raw.root.parent / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "must not run" not in result.stdout
    assert result.stderr.startswith("error: ")
    assert "print" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"a": 1}), pickle.dumps(list(range(9)))[:-4]])
def test_unreadable_pickle_is_one_error(raw, content):
    raw.refs_file.write_bytes(content)
    with pytest.raises(UserError, match=r"refs\(unc\)\.p"):
        convert(raw)


def test_ref_to_a_missing_annotation_is_skipped_and_listed(raw):
    raw.refs[0]["ann_id"] = 7
    raw.save()
    directory = convert(raw)
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(pictures=1, objects=1, phrases=2, skipped=1)
    (entry,) = skipped(directory)
    assert entry["ref_id"] == 0
    assert "annotation 7" in entry["reason"]


def test_truncated_picture_is_quarantined_and_its_split_left_out(raw):
    encoded = raw.picture(1).read_bytes()
    raw.picture(1).write_bytes(encoded[: len(encoded) // 2])
    raw.picture(2).unlink()
    directory = convert(raw)
    counts, _ = read_report(directory)
    assert counts["val"] == counts["testA"] == SplitCounts(skipped=1)
    assert counts["train"].pictures == counts["testB"].pictures == 1
    assert {entry["file"] for entry in skipped(directory)} == {raw.picture(1).name, raw.picture(2).name}
    with pytest.raises(UserError, match="no split 'val'; it has train, testB"):
        open_source("refcoco", data_dir=raw.root.parent / "out", split="val")


def test_short_polygon_is_left_out_and_the_object_kept_if_another_remains(raw):
    raw.instances["annotations"][0]["segmentation"] = [[1, 1, 9, 9], rectangle(0, 0, 4, 5)]
    raw.instances["annotations"][1]["segmentation"] = [[1, 1, 9, 9]]
    raw.save()
    directory = convert(raw)
    sample = open_source("refcoco", data_dir=raw.root.parent / "out", split="train")[0]
    assert sample.masks.sum(axis=(1, 2)).tolist() == [20]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=1, phrases=2, skipped=2)
    assert all("2 points" in entry["reason"] for entry in skipped(directory))


def spoil_size(raw):
    raw.instances["images"][0]["height"] += 1


def spoil_name(raw):
    raw.instances["images"][0]["file_name"] = "../secret.jpg"


def spoil_ref(raw):
    raw.refs[0] = {"split": "train", "image_id": [1]}


def spoil_split(raw):
    raw.refs[0]["split"] = "../train"


def spoil_owner(raw):
    raw.refs[0]["ann_id"] = raw.refs[2]["ann_id"]


def spoil_ann_id(raw):
    raw.refs[0]["ann_id"] = [raw.refs[0]["ann_id"]]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, "96 × 128"),
        (spoil_name, "plain file name"),
        (spoil_ref, "lacks"),
        (spoil_split, "split"),
        (spoil_owner, "of picture 310001"),
        (spoil_ann_id, "the id of one annotation"),
    ],
)
def test_bad_entry_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw)
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    counts, _ = read_report(directory)
    assert counts["testB"] == SplitCounts(**SPLIT_SIZES)


def test_nothing_convertible_is_an_error_and_leaves_nothing(raw):
    for number in range(4):
        raw.picture(number).unlink()
    with pytest.raises(UserError, match="nothing of"):
        convert(raw)
    assert not list((raw.root.parent / "out").rglob("*.array_record*"))


def test_interrupted_conversion_leaves_nothing_that_looks_finished(raw, monkeypatch):
    directory = convert(raw)
    kept = (directory / "conversion.json").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unilseg_jax.input_pipeline.conversion.Conversion.picture_done", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(raw, "--overwrite")
    assert (directory / "conversion.json").read_bytes() == kept
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]
    raw.root.parent.joinpath("out").rename(raw.root.parent / "elsewhere")
    with pytest.raises(KeyboardInterrupt):
        convert(raw)
    assert not directory.exists()


def test_pictures_may_lie_elsewhere(raw, tmp_path):
    raw.pictures.rename(tmp_path / "pictures")
    with pytest.raises(UserError, match="images/train2014"):
        convert(raw)
    assert read_report(convert(raw, "--pictures", str(tmp_path / "pictures")))[0]["val"].pictures == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["refcoco", "--raw", "nowhere", "--out", "out"], "no such folder: 'nowhere'"),
        (["refcocoz", "--raw", ".", "--out", "out"], "no builder for the data set 'refcocoz'; there are: .*refcoco"),
        (["../refcoco", "--raw", ".", "--out", "out"], "no builder"),
        (["refcoco", "--raw", ".", "--out", "out"], "does not hold any configuration"),
        (["refcoco", "--raw", ".", "--out", "out", "--config", "refclef"], "no configuration 'refclef'"),
        (
            ["refcoco", "--raw", ".", "--out", "out", "--config", "refcocog"],
            "does not hold the configuration 'refcocog'",
        ),
    ],
)
def test_wrong_argument_is_one_clear_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        prepare.main(arguments)
    assert "\n" not in str(caught.value)


def test_missing_annotation_file_is_one_clear_line(raw):
    (raw.refs_file.parent / "instances.json").unlink()
    with pytest.raises(UserError, match=r"instances\.json"):
        convert(raw)


def test_differences_name_what_is_off():
    published = {"val": SplitCounts(pictures=2, objects=3, phrases=4), "test": SplitCounts(pictures=1)}
    counts = {
        "val": SplitCounts(pictures=2, objects=3, phrases=5, skipped=1),
        "test": SplitCounts(pictures=1),
    }
    assert differences(counts, published) == ["val: 5 of 4 phrases"]


def test_published_counts_add_up_to_the_sizes_of_the_sets():
    configs = {config.name: config for config in prepare.load_builder("refcoco").BUILDER_CONFIGS}
    for name, wanted in {
        "refcoco": (19994, 50000, 142210),
        "refcoco+": (19992, 49856, 141564),
        "refcocog": (25799, 49822, 95010),
    }.items():
        published = configs[name].published.values()
        sums = (sum(getattr(counts, size) for counts in published) for size in ("pictures", "objects", "phrases"))
        assert tuple(sums) == wanted


def test_too_much_that_is_broken_is_an_error_and_leaves_the_list(raw):
    """One picture of four and with it two objects of eight."""
    raw.picture(0).write_bytes(raw.picture(0).read_bytes()[:300])
    out = raw.root.parent / "out"
    with pytest.raises(UserError, match=r"1 of 7 entries \(14.3%\) are broken, at most 1.0% may be.*--max-skipped"):
        prepare.main(["refcoco", "--raw", str(raw.root), "--out", str(out)])
    folder = out / "refcoco" / raw.folder
    assert [path.name for path in folder.iterdir()] == ["1.0.0.quarantine.jsonl"]
    (entry,) = [json.loads(line) for line in (folder / "1.0.0.quarantine.jsonl").read_text().splitlines()]
    assert entry["file"] == raw.picture(0).name
    assert (convert(raw) / "dataset_info.json").is_file()


def test_real_samples_have_the_counts_of_their_description(shared_dir, tmp_path):
    prepare.main(["refcoco", "--raw", str(shared_dir / "data" / "refer"), "--out", str(tmp_path)])
    for name, (objects, phrases) in {"refcoco": (55, 94), "refcocog": (28, 28)}.items():
        counts, _ = read_report(tmp_path / "refcoco" / name / "1.0.0")
        assert sum(split.objects for split in counts.values()) == objects
        assert sum(split.phrases for split in counts.values()) == phrases
        assert sum(split.skipped for split in counts.values()) == 0
        for split in counts:
            source = open_source(f"refcoco/{name}", data_dir=tmp_path, split=split)
            assert all(source[i].masks.any(axis=(1, 2)).all() for i in range(len(source)))
