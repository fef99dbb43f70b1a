"""The leakage firewall: what counts as the same picture, what is dropped, and what is marked."""

import dataclasses
import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import leakage, leakage_files
from unilseg_jax.input_pipeline.index import Index, fingerprint
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.sources import open_source


def index(coco_ids, fingerprints=None):
    """An index; without fingerprints every record gets one that is far from all others."""
    count = len(coco_ids)
    prints = (
        hashes(np.random.default_rng([coco_id + 1 for coco_id in coco_ids]), count)
        if fingerprints is None
        else fingerprints
    )
    return Index(np.ones(count, np.uint16), np.array(coco_ids, np.int64), np.array(prints, np.uint64))


def hashes(rng, count):
    """Random hashes with half of their bits set, as the perceptual hash of a picture has them."""
    bits = rng.random((count, 64), dtype=np.float32).argpartition(32, axis=1)[:, :32].astype(np.uint64)
    return (np.uint64(1) << bits).sum(axis=1, dtype=np.uint64)


def with_flipped_bits(rng, prints, count):
    """Swaps bits so that the number of set bits stays: `count` must be even."""
    out = []
    for value in prints.tolist():
        bits = [place for place in range(64) if value >> place & 1]
        others = [place for place in range(64) if not value >> place & 1]
        for place in (*rng.choice(bits, count // 2, replace=False), *rng.choice(others, count // 2, replace=False)):
            value ^= 1 << int(place)
        out.append(value)
    return np.array(out, np.uint64)


def test_the_same_coco_id_is_the_same_picture():
    found = leakage.overlaps(index([5, 6, -1, 9]), index([9, -1, 5]))
    assert found.tolist() == [True, False, False, True]


def test_hashes_up_to_the_distance_are_the_same_picture():
    rng = np.random.default_rng(0)
    prints = hashes(rng, 200)
    for apart in (0, 2, 4, 6):
        found = leakage.alike(with_flipped_bits(rng, prints, apart), prints)
        assert found.all() if apart <= leakage.DISTANCE else not found.any()


@pytest.mark.parametrize("distance", [2, 5, 20])
def test_the_bands_find_what_comparing_all_pairs_finds(distance, monkeypatch):
    # Small pieces, so that rows are split among many of them.
    monkeypatch.setattr(leakage, "ROWS", 70)
    monkeypatch.setattr(leakage, "PAIRS", 50)
    rng = np.random.default_rng(distance)
    others = np.concatenate([hashes(rng, 150), np.full(20, hashes(rng, 1)[0])])
    prints = np.concatenate([hashes(rng, 300), with_flipped_bits(rng, others[::4], 4), others[-1:]])
    wanted = (np.bitwise_count(prints[:, None] ^ others[None]) <= distance).any(axis=1)
    assert 0 < wanted.sum() < len(wanted)
    np.testing.assert_array_equal(leakage.alike(prints, others, distance), wanted)


def plain_pictures():
    rows, columns = np.mgrid[:120, :160]
    return {
        "black": np.zeros((120, 160)),
        "white": np.full((120, 160), 255),
        "grey": np.full((120, 160), 128),
        "ramp": columns * 255 / 160,
        "steep ramp": (columns / 160) ** 2 * 255,
        "upright ramp": rows * 255 / 120,
        "stripes": columns // 20 % 2 * 255,
        "half": (columns > 80) * 30,
    }


def test_pictures_without_structure_match_nothing_by_their_hash():
    prints = []
    for pixels in plain_pictures().values():
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG")
        prints.append(fingerprint(buffer.getvalue()))
    prints = np.array(prints, np.uint64)
    assert not leakage.alike(prints, prints).any()
    numbers = list(range(len(prints)))
    assert leakage.overlaps(index(numbers, prints), index(numbers, prints)).all()


def test_a_million_records_are_compared_with_fifty_thousand_in_seconds():
    rng = np.random.default_rng(0)
    benchmark, train = hashes(rng, 50_000), hashes(rng, 250_000)
    # Making a million takes longer than comparing them: the others are the same bits in another order.
    turned = [(train << np.uint64(turn)) | (train >> np.uint64(64 - turn)) for turn in (7, 19, 33)]
    train = np.concatenate([train, *turned])
    places = rng.choice(len(train), 1000, replace=False)
    train[places] = with_flipped_bits(rng, benchmark[:1000], 4)
    began = time.perf_counter()
    found = leakage.alike(train, benchmark)
    seconds = time.perf_counter() - began
    assert np.array_equal(np.flatnonzero(found), np.sort(places))
    assert seconds < 20, f"{seconds:.1f} s; comparing all pairs would take minutes"


def test_dropping_keeps_the_others_and_counts_by_source_and_benchmark():
    sources = {"stuff": index([1, 2, 3, 4]), "other": index([10, 11]), "scenes": None}
    verdict = leakage.check(sources, {"val": index([2, 3]), "test": index([3, 10]), "drawn": None})
    assert verdict.kept["stuff"].tolist() == [True, False, False, True]
    assert verdict.kept["other"].tolist() == [False, True]
    assert verdict.kept["scenes"] is None
    assert verdict.overlaps == {"stuff": {"val": 2, "test": 1}, "other": {"val": 0, "test": 1}}
    assert verdict.in_any == {"stuff": 2, "other": 1}
    assert verdict.mark() == {"leakage": "drop", "leakage_dropped": 3}
    assert verdict.mark("test") == {"leakage": "drop", "leakage_dropped": 2}


def test_paper_mode_keeps_everything_and_marks_the_numbers():
    verdict = leakage.check({"stuff": index([1, 2, 3])}, {"val": index([2])}, "paper")
    assert verdict.kept["stuff"].all()
    assert verdict.mark() == verdict.mark("val") == {"leakage": "paper", "leakage_trained_on": 1}
    assert verdict.mark("drawn") == {"leakage": "paper", "leakage_trained_on": 0}


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="mode = 'off' must be one of drop, paper"):
        leakage.check({}, {}, "off")


def test_a_source_of_which_nothing_is_left_is_an_error():
    with pytest.raises(UserError, match=r"every picture of the training source 'stuff' is in a benchmark \(val\)"):
        leakage.check({"stuff": index([2])}, {"val": index([2]), "test": index([5])})


def test_a_source_of_which_nothing_to_be_learnt_is_left_is_an_error():
    train = index([1, 2, 3])._replace(samples=np.array([0, 4, 0], np.uint16))
    with pytest.raises(UserError, match=r"every picture with a phrase to be learnt of the training source 'stuff'"):
        leakage.check({"stuff": train}, {"val": index([2])})
    # The mixture says that there was nothing before.
    assert leakage.check({"stuff": train._replace(samples=train.samples * 0)}, {"val": index([2])}).mark()


def test_what_the_first_weights_bring_along_marks_every_number():
    verdict = dataclasses.replace(leakage.check({"stuff": index([1])}, {"val": index([2])}), inherited=5)
    assert verdict.mark("val") == {"leakage": "drop", "leakage_dropped": 0, "leakage_inherited": 5}
    assert verdict.numbers("val") == {"leakage_inherited": 5}
    assert "leakage inherited" in verdict.note()
    assert "trained on 5 pictures of benchmarks" in shown(verdict)


def shown(verdict, width=200):
    console = Console(file=io.StringIO(), width=width)
    verdict.show(console)
    return console.file.getvalue()


def cells(line):
    return [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")]


def test_what_was_found_is_printed():
    text = shown(leakage.check({"stuff": index([1, 2]), "scenes": None}, {"val": index([2]), "test": index([7])}))
    assert "left out" in text
    assert "compared with val, test\n" in text
    assert cells(text.splitlines()[3]) == ["source", "pictures", "in any", "in which"]
    assert cells(text.splitlines()[5]) == ["stuff", "2", "1", "val 1"]
    assert cells(text.splitlines()[6]) == ["scenes", "drawn", "-", ""]
    assert "paper" in shown(leakage.check({"stuff": index([1])}, {"val": index([2])}, "paper"))
    assert "nothing to compare" in shown(leakage.check({"scenes": None}, {"val": index([2])}))


def test_names_are_whole_on_a_narrow_console():
    sources = {f"ref_youtube_vos_{number}": index([1, 2]) for number in range(3)}
    benchmarks = {f"partimagenet_val_{number}": index([2]) for number in range(8)}
    text = shown(leakage.check(sources, benchmarks), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(text.count(name) == 1 for name in sources)
    assert all(text.count(f"{name} 1") == len(sources) for name in benchmarks)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refcoco")
    names = ("refcocog", "refcocog_google")
    configs = [f"--config={name}" for name in names]
    prepare.main(["refcoco", "--synthetic=3", "--raw", str(folder / "raw"), "--out", str(folder / "out"), *configs])
    return folder / "out"


def test_prepared_sets_are_compared_by_their_indices(prepared):
    """The stand-in of Google's split has the pictures of UMD's train split, in train and in val."""
    names = {"refcocog": "train", "refcocog_google": "val"}
    indices = leakage.indices(
        {name: open_source(f"refcoco/{name}", data_dir=prepared, split=split) for name, split in names.items()}
    )
    test = leakage.index_of(open_source("refcoco/refcocog", data_dir=prepared, split="test"))
    assert leakage.overlaps(indices["refcocog"], indices["refcocog_google"]).tolist() == [True] * 3
    assert leakage.overlaps(indices["refcocog"], test).tolist() == [False] * 3


def test_drawn_scenes_are_exempt():
    assert leakage.index_of(SceneSource(num_scenes=2, seed=0, size=64)) is None


def test_a_choice_of_records_has_their_indices(prepared):
    source = open_source("refcoco/refcocog", data_dir=prepared, split="val")
    chosen = leakage.index_of(source.select(np.array([True, False, True])))
    assert chosen.coco_id.tolist() == leakage.index_of(source).coco_id[[0, 2]].tolist()


def test_real_samples_name_the_pictures_that_are_shared(shared_dir, tmp_path):
    """Their description says that 47 pictures of the RefCOCO sets are also in COCO's train2017."""
    prepare.main(["refcoco", "--raw", str(shared_dir / "data" / "refer"), "--out", str(tmp_path)])
    raw = ["--raw", str(shared_dir / "data" / "coco"), "--out", str(tmp_path)]
    prepare.main(["coco", "--config=instances", *raw])
    train = open_source("coco/instances", data_dir=tmp_path, split="train")
    splits = {"refcoco": ("train", "val", "testA", "testB"), "refcocog": ("train", "val", "test")}
    benchmarks = {
        f"{name}:{split}": leakage.index_of(open_source(f"refcoco/{name}", data_dir=tmp_path, split=split))
        for name, names in splits.items()
        for split in names
    }
    index_of_train = leakage.index_of(train)
    verdict = leakage.check({"coco": index_of_train}, benchmarks)
    assert verdict.in_any == {"coco": 47}
    held_out = {key: count for key, count in verdict.overlaps["coco"].items() if not key.endswith("train")}
    assert held_out == {"refcoco:val": 1, "refcoco:testA": 0, "refcoco:testB": 3, "refcocog:val": 0, "refcocog:test": 3}
    shared = np.flatnonzero(leakage.overlaps(index_of_train, benchmarks["refcoco:val"])).tolist()
    assert [train.record(number)["image_id"] for number in shared] == [b"000000520199"]
    leakage_files.write(verdict, tmp_path, {"coco": train})
    lines = [json.loads(line) for line in (tmp_path / "leakage.jsonl").read_text().splitlines()]
    assert len({line["image_id"] for line in lines}) == 47
    assert all(int(line["image_id"]) == line["coco_id"] for line in lines)
    assert {line["by"] for line in lines} == {"id"}
    # The hashes alone find the same pictures as the ids.
    without_ids = index_of_train._replace(coco_id=np.full(len(train), -1))
    by_looks = leakage.check({"coco": without_ids}, benchmarks)
    assert by_looks.kept["coco"].tolist() == verdict.kept["coco"].tolist()
    found = list(leakage_files.pictures(by_looks, {"coco": train}))
    assert [line["image_id"] for line in found] == [line["image_id"] for line in lines]
    assert {line["by"] for line in found} == {"looks"}
