"""Conversion of salient object data sets: layouts, modes of masks, and what is skipped."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source

prepare.load_builder("salient")
from unilseg_jax_data_salient import synthetic  # noqa: E402  (loaded by the line above)

PHRASE = "the most salient object"
HEIGHT, WIDTH = 40, 50


def convert(raw: Path, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the prepared data sets."""
    out = raw.parent / "out"
    prepare.main(["salient", "--raw", str(raw), "--out", str(out), "--max-skipped=1", *options])
    return out


def counts(out: Path, config: str) -> dict[str, SplitCounts]:
    return read_report(out / "salient" / config / "1.0.0")[0]


def skipped(out: Path, config: str = "pairs") -> dict[str, str]:
    file = out / "salient" / config / "1.0.0" / "quarantine.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {entry["file"]: entry["reason"] for entry in entries}


def samples(out: Path, config: str, split: str) -> dict:
    source = open_source(f"salient/{config}", data_dir=out, split=split)
    return {source[number].image_id: source[number] for number in range(len(source))}


def square(level: int = 255) -> np.ndarray:
    levels = np.zeros((HEIGHT, WIDTH), np.uint8)
    levels[10:20, 15:35] = level
    return levels


def add_picture(folder: Path, stem: str, ending: str = ".jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(len(stem)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(image).save(folder / f"{stem}{ending}")
    return folder / f"{stem}{ending}"


def add_pair(raw: Path, stem: str, mask: Image.Image | np.ndarray, names: tuple[str, str] = ("images", "masks")):
    """Writes a picture and its mask, a PNG."""
    add_picture(raw / names[0], stem)
    (raw / names[1]).mkdir(parents=True, exist_ok=True)
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(raw / names[1] / f"{stem}.png")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> tuple[Path, Path]:
    raw = tmp_path_factory.mktemp("salient") / "raw"
    synthetic.write(raw, count=5)
    return raw, convert(raw)


@pytest.mark.parametrize(
    ("config", "splits"),
    [
        ("ecssd", ["test"]),
        ("duts", ["train", "test"]),
        ("sod", ["test"]),
        ("pascal_s", ["test"]),
        ("pairs", ["train"]),
    ],
)
def test_stand_in_of_every_set_is_converted_whole(stand_in, config, splits):
    _, out = stand_in
    assert counts(out, config) == {split: SplitCounts(pictures=5, objects=5, phrases=5) for split in splits}
    for split in splits:
        for sample in samples(out, config, split).values():
            assert (sample.phrases, sample.kinds, sample.mask_index) == ((PHRASE,), ("salient",), (0,))
            # The right one of the two drawn things is in no mask.
            assert sample.masks[0, :, : synthetic.WIDTH // 2].any()
            assert not sample.masks[0, :, synthetic.WIDTH // 2 :].any()


def test_masks_are_those_drawn(stand_in):
    raw, out = stand_in
    for config, split, folder in (
        ("ecssd", "test", "ECSSD/ground_truth_mask"),
        ("duts", "train", "DUTS-TR/DUTS-TR-Mask"),
        ("sod", "test", "SOD/Imgs"),
        ("pascal_s", "test", "PASCAL-S/datasets/masks/pascal"),
    ):
        for image_id, sample in samples(out, config, split).items():
            drawn = np.asarray(Image.open(raw / folder / f"{image_id}.png"))
            np.testing.assert_array_equal(sample.masks[0], drawn == 255)


def test_record_says_what_it_is(stand_in):
    raw, out = stand_in
    record = open_source("salient/duts", data_dir=out, split="train").record(0)
    assert record["image"] == (raw / "DUTS-TR/DUTS-TR-Image/n01532829_1.jpg").read_bytes()
    assert (record["image_id"], record["task"]) == (b"n01532829_1", b"salient")
    assert (record["source"], record["coco_id"]) == (b"salient/duts", -1)
    assert list(record["mask_kinds"]) == [b"salient"]


def test_same_seed_writes_the_same_files(tmp_path, stand_in):
    raw, _ = stand_in
    synthetic.write(tmp_path, count=5)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert written == sorted(path.relative_to(raw) for path in raw.rglob("*.*"))
    assert all((tmp_path / name).read_bytes() == (raw / name).read_bytes() for name in written if name.suffix)


@pytest.mark.parametrize("mode", synthetic.MODES)
def test_every_mode_of_mask_gives_the_same_mask(tmp_path, mode):
    mask = synthetic.as_mode(square(), mode)
    assert mask.mode == mode
    add_pair(tmp_path / "raw", "a", mask)
    (sample,) = samples(convert(tmp_path / "raw"), "pairs", "train").values()
    np.testing.assert_array_equal(sample.masks[0], square() > 0)


def test_object_begins_at_level_128(tmp_path):
    levels = square()
    levels[0, :3] = (127, 128, 129)
    add_pair(tmp_path / "raw", "a", levels)
    (sample,) = samples(convert(tmp_path / "raw"), "pairs", "train").values()
    assert sample.masks[0, 0, :3].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("names", "config"),
    [
        (("images", "ground_truth_mask"), "ecssd"),
        (("ECSSD/Imgs", "ECSSD/Imgs"), "ecssd"),
        (("ECSSD/Image", "ECSSD/GT"), "ecssd"),
        (("DUTS/DUTS-TE/DUTS-TE-Image", "DUTS/DUTS-TE/DUTS-TE-Mask"), "duts"),
        (("SOD/image", "SOD/mask"), "sod"),
        (("datasets/imgs/pascal", "datasets/masks/pascal"), "pascal_s"),
        (("PASCAL-S/Imgs", "PASCAL-S/Imgs"), "pascal_s"),
        (("pascal_s/images", "pascal_s/gt"), "pascal_s"),
        (("RGB", "GT"), "pairs"),
        (("Imgs", "Imgs"), "pairs"),
        ((".", "."), "pairs"),
    ],
)
def test_layout_is_found_as_one_configuration(tmp_path, names, config):
    raw = tmp_path / "raw"
    add_pair(raw, "a", square(), names)
    builder = prepare.load_builder("salient")
    assert builder.found_configs(raw) == [config]
    assert [split.pictures for split in counts(convert(raw), config).values()] == [1]


def test_raw_folder_itself_may_be_the_set(tmp_path, monkeypatch):
    add_pair(tmp_path / "SOD", "a", square(), ("Imgs", "Imgs"))
    builder = prepare.load_builder("salient")
    assert builder.found_configs(tmp_path / "SOD") == ["sod"]
    monkeypatch.chdir(tmp_path / "SOD")
    assert builder.found_configs(Path(".")) == ["sod"]


def test_folders_of_own_pairs_keep_their_names_and_splits(tmp_path):
    raw = tmp_path / "raw"
    for folder in ("birds", "fish", "train", "val"):
        add_pair(raw / folder, "a", square())
    out = convert(raw)
    assert set(samples(out, "pairs", "train")) == {"birds/a", "fish/a", "a"}
    assert set(samples(out, "pairs", "val")) == {"a"}


def test_empty_mask_is_a_phrase_that_matches_nothing(tmp_path):
    add_pair(tmp_path / "raw", "a", square(0))
    out = convert(tmp_path / "raw")
    assert counts(out, "pairs") == {"train": SplitCounts(pictures=1, objects=0, phrases=1)}
    (sample,) = samples(out, "pairs", "train").values()
    assert (sample.phrases, sample.kinds, sample.mask_index) == ((PHRASE,), ("nothing",), (-1,))


def test_graded_mask_without_a_majority_matches_nothing(tmp_path):
    raw = tmp_path / "raw"
    add_pair(raw / "PASCAL-S", "1", square(106), ("datasets/imgs/pascal", "datasets/masks/pascal"))
    (sample,) = samples(convert(raw), "pascal_s", "test").values()
    assert sample.mask_index == (-1,)


def spoil_picture(raw: Path):
    path = raw / "images/b.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_mask(raw: Path):
    path = raw / "masks/b.png"
    path.write_bytes(path.read_bytes()[:60])


def spoil_size(raw: Path):
    Image.fromarray(square()[:-1]).save(raw / "masks/b.png")


def spoil_levels(raw: Path):
    Image.fromarray(square(1)).save(raw / "masks/b.png")


def spoil_depth(raw: Path):
    Image.fromarray(square().astype(np.uint16)).save(raw / "masks/b.png")


def spoil_partner(raw: Path):
    (raw / "masks/b.png").unlink()


def spoil_header(raw: Path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    (raw / "masks/b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_picture, "picture is broken"),
        (spoil_mask, "is broken"),
        (spoil_size, "39 × 50, its picture 40 × 50"),
        (spoil_levels, "brightest level is 1"),
        (spoil_depth, "mode I;16; grey or colours of 8 bits"),
        (spoil_partner, "no mask of its stem"),
        (spoil_header, "too large|pixels"),
    ],
)
def test_bad_pair_is_listed_and_the_rest_converted(tmp_path, spoil, reason):
    raw = tmp_path / "raw"
    for stem in "abc":
        add_pair(raw, stem, square())
    spoil(raw)
    out = convert(raw)
    assert counts(out, "pairs") == {"train": SplitCounts(pictures=2, objects=2, phrases=2, skipped=1)}
    ((file, said),) = skipped(out).items()
    assert file == "b.jpg"
    assert any(part in said for part in reason.split("|")), said
    assert set(samples(out, "pairs", "train")) == {"a", "c"}


def test_names_that_do_not_fit_are_listed(tmp_path):
    raw = tmp_path / "raw"
    add_pair(raw, "a", square())
    add_picture(raw / "images", "a", ".png")
    (raw / "masks/lonely.png").write_bytes((raw / "masks/a.png").read_bytes())
    # What a Mac leaves beside files is no picture.
    (raw / "images/._a.jpg").write_bytes(b"")
    strange = b"\xff.jpg".decode("utf-8", "surrogateescape")
    (raw / "images" / strange).write_bytes((raw / "images/a.jpg").read_bytes())
    out = convert(raw)
    assert skipped(out) == {
        "a.png": "a second file of the stem 'a'; the first one is kept",
        "lonely.png": "the mask has no picture of its stem",
        "\\xff.jpg": "the file's name is not UTF-8",
    }
    assert list(samples(out, "pairs", "train")) == ["a"]


def test_pictures_elsewhere_are_refused_in_one_line(tmp_path):
    add_pair(tmp_path / "raw", "a", square())
    with pytest.raises(UserError, match="leave --pictures out"):
        convert(tmp_path / "raw", "--pictures", str(tmp_path))


def test_folder_without_pairs_is_one_clear_line(tmp_path):
    add_picture(tmp_path / "raw", "a")
    with pytest.raises(UserError, match=r"does not hold any configuration.*DUTS-TR"):
        convert(tmp_path / "raw")


def test_published_sizes_are_those_of_the_authors():
    published = {config.name: config.published for config in prepare.load_builder("salient").BUILDER_CONFIGS}
    pictures = {name: [counts.pictures for counts in splits.values()] for name, splits in published.items()}
    assert pictures == {"ecssd": [1000], "duts": [10553, 5019], "sod": [300], "pascal_s": [850], "pairs": []}


def test_real_samples_are_paired_and_their_masks_not_empty(shared_dir, tmp_path):
    raw = shared_dir / "data" / "salient_samples"
    prepare.main(["salient", "--raw", str(raw), "--out", str(tmp_path)])
    assert counts(tmp_path, "pairs") == {"train": SplitCounts(pictures=4, objects=4, phrases=4)}
    found = samples(tmp_path, "pairs", "train")
    assert set(found) == {"MSRA_style/0"} | {f"SSD/histrory{number}" for number in (10301, 10401, 10501)}
    for image_id, sample in found.items():
        mask = next(raw.glob(f"{image_id.replace('/', '/**/')}.png"))
        np.testing.assert_array_equal(sample.masks[0], np.asarray(Image.open(mask).convert("L")) >= 128)
