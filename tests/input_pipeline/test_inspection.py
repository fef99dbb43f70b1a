"""What is there of the data sets: what is offered for conversion, and what is to be fetched from where."""

import re
import shutil
from pathlib import Path

import pytest

from unilseg_jax.input_pipeline import catalogue
from unilseg_jax.input_pipeline.conversion import SplitCounts
from unilseg_jax.input_pipeline.inspection import SetState, inspect_set
from unilseg_jax.input_pipeline.triplet import SCHEMA_VERSION

NAMES = catalogue.builder_names()
YOUR_OWN = {("image_folder", "image_folder"), ("salient", "pairs")}


def convertible(name: str, raw: Path) -> list[str]:
    states = inspect_set(name, catalogue.load_builder(name), raw / "nothing prepared", [raw])
    return [state.config for state in states if state.convertible]


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_pictures_is_not_offered_for_conversion(name, tmp_path):
    catalogue.load_stand_in(name).write(tmp_path, 1)
    builder = catalogue.load_builder(name)
    assert convertible(name, tmp_path) == builder.found_configs(tmp_path) != []
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if path.suffix.lower() in (".jpg", ".jpeg", ".tar", ".zip"):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    assert convertible(name, tmp_path) == []
    # Annotations alone are still found, since --pictures may name the pictures' place.
    lacking = [s for s in inspect_set(name, builder, tmp_path / "out", [tmp_path]) if s.raw]
    assert all(state.pictures_wanted and state.missing == [f"{name}/{state.config}"] for state in lacking)


def test_of_two_raw_folders_the_one_with_pictures_is_taken(tmp_path):
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    catalogue.load_stand_in("refcoco").write(whole, 1)
    shutil.copytree(whole / "refcoco", bare / "refcoco")
    for folders in ([bare, whole], [whole, bare]):
        state = inspect_set("refcoco", catalogue.load_builder("refcoco"), tmp_path, folders)[0]
        assert (state.raw, state.pictures_wanted) == (whole, ())


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_says_what_to_fetch_as_its_page_does(name):
    page = (catalogue.BUILDERS / name / "README.md").read_text(encoding="utf-8")
    for config in catalogue.load_builder(name).BUILDER_CONFIGS:
        addresses = re.findall(r"https?://[^\s,;]+", config.fetch)
        assert bool(addresses) is ((name, config.name) not in YOUR_OWN)
        assert [address for address in addresses if address not in page] == []


def test_sets_of_one_builder_have_homepages_of_their_own():
    builder = catalogue.load_builder("salient")
    pages = {config.name: config.homepage or builder.HOMEPAGE for config in builder.BUILDER_CONFIGS}
    assert [
        re.search("hsaliency|duts|SOD|salobj", pages[name])[0] for name in ("ecssd", "duts", "sod", "pascal_s")
    ] == [
        "hsaliency",
        "duts",
        "SOD",
        "salobj",
    ]


def test_an_empty_split_of_a_prepared_set_is_missing():
    state = SetState(
        name="ade20k",
        config="ade20k",
        directory=Path("1.0.0"),
        schema=SCHEMA_VERSION,
        counts={"val": SplitCounts(pictures=3)},
        published={"train": SplitCounts(pictures=20_210), "val": SplitCounts(pictures=2_000)},
        fetch="from there",
    )
    assert state.missing == ["ade20k/ade20k:train"]
