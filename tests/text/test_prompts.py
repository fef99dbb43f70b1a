"""Phrases: every table of class names, how names are cleaned, and sides exchanged for mirrored pictures."""

import csv
import json
import re
from pathlib import Path

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.text import prompts
from unilseg_jax.text.prompts import all_of, class_names, clean, flip_sides, tables

# The labels as the data sets' authors number them. Ten of COCO's ids of things were never given.
COCO_THINGS = set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
LABELS = {
    "ade20k": set(range(1, 151)),
    "coco_panoptic_merged": set(range(184, 201)),
    "coco_stuff": COCO_THINGS | set(range(92, 183)),
    "lip": set(range(1, 20)),
    "part_imagenet": set(range(40)),
    "pascal_context59": set(range(1, 60)),
}


def test_every_table_is_known_to_this_test():
    assert set(tables()) == set(LABELS)


def test_the_tables_have_the_published_numbers_of_classes():
    sizes = {table: len(labels) for table, labels in LABELS.items()}
    assert len(COCO_THINGS) == 80
    assert (sizes["ade20k"], sizes["coco_stuff"], sizes["pascal_context59"]) == (150, 171, 59)
    assert (sizes["lip"], sizes["part_imagenet"]) == (19, 40)


@pytest.mark.parametrize("table", tables())
def test_labels_are_unique_and_as_published(table):
    labels = [name.label for name in class_names(table)]
    assert labels == sorted(LABELS[table])


@pytest.mark.parametrize("table", tables())
def test_phrases_are_unique_and_plain_language(table):
    phrases = [name.phrase for name in class_names(table)]
    assert sorted(phrases) == sorted(set(phrases))
    for phrase in phrases:
        assert re.fullmatch(r"[a-z0-9]+([ '-][a-z0-9]+)*('s)?", phrase), phrase
        assert "all" not in phrase.split()


@pytest.mark.parametrize("table", tables())
def test_native_names_are_there_and_unique(table):
    natives = [name.native for name in class_names(table)]
    assert len(natives) == len(set(natives))
    assert all(native and native == native.strip() for native in natives)


def read_table(path: Path, label: str, name: str) -> dict[int, str]:
    with open(path, encoding="utf-8") as lines:
        return {int(row[label]): row[name].strip() for row in csv.DictReader(lines, delimiter="\t")}


def read_categories(path: Path) -> dict[int, str]:
    return {category["id"]: category["name"] for category in json.loads(path.read_text(encoding="utf-8"))}


def read_labels(path: Path) -> dict[int, str]:
    pairs = (line.split(": ") for line in path.read_text(encoding="utf-8").splitlines())
    return {int(label): name.strip() for label, name in pairs}


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("ade20k", lambda data: read_table(data / "ADEChallengeData2016" / "objectInfo150.txt", "Idx", "Name")),
        ("coco_panoptic_merged", lambda data: read_categories(data / "coco" / "panoptic_coco_categories.json")),
        ("coco_stuff", lambda data: read_labels(data / "cocostuff" / "labels.txt")),
        ("lip", lambda data: read_table(data / "label_lists" / "lip_20.tsv", "label", "name")),
        ("part_imagenet", lambda data: read_categories(data / "label_lists" / "partimagenet_categories.json")),
        (
            "pascal_context59",
            lambda data: read_table(data / "label_lists" / "pascal_context_59.tsv", "index_in_60_class_png", "name"),
        ),
    ],
)
def test_native_names_are_those_of_the_authors_list(shared_dir, table, read):
    real = read(shared_dir / "data")
    assert {name.label: name.native for name in class_names(table)} == {label: real[label] for label in LABELS[table]}


def test_classes_of_ade20k_that_share_a_word_are_told_apart():
    phrases = {name.label: name.phrase for name in class_names("ade20k")}
    assert phrases[15] == "door"
    assert phrases[59] == "screen door"
    assert len({phrases[label] for label in (59, 64, 131, 142, 144)}) == 5  # screens
    assert len({phrases[label] for label in (54, 60, 122)}) == 3  # stairs
    assert len({phrases[label] for label in (14, 30, 95)}) == 3  # ground


def test_unknown_table_is_an_error_that_names_the_tables():
    with pytest.raises(UserError, match=r"'ade'; there are: .*ade20k.*pascal_context59"):
        class_names("ade")
    with pytest.raises(UserError, match="no table"):
        class_names("../names/ade20k")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("wall, plaster wall", "wall"),
        ("traffic light;traffic signal", "traffic light"),
        ("Cosmetics Brush/Eyeliner Pencil", "cosmetics brush"),
        ("wall-brick", "wall brick"),
        ("Traffic_Light  ", "traffic light"),
        ("cabinet (kitchen)", "cabinet"),
        ("(old) chair", "old"),
        (", chair", "chair"),
        ("Hair\tDryer", "hair dryer"),
        ("Crêpe", "crêpe"),
        ("", ""),
        (" ;/", ""),
    ],
)
def test_cleaned_names(name, wanted):
    assert clean(name) == wanted


def test_phrases_of_table_1():
    assert all_of("traffic light") == "all traffic light"
    assert prompts.SALIENT == "the most salient object"


@pytest.mark.parametrize(
    ("name", "other", "wanted"),
    [
        ("wall", "wall", True),
        ("wall", "brick wall", True),
        ("brick wall", "wall", False),
        ("chair", "armchair", True),
        ("screen", "screen door", False),
        ("", "wall", False),
    ],
)
def test_a_class_includes_those_whose_names_end_in_its_own(name, other, wanted):
    assert prompts.includes(name, other) is wanted


@pytest.mark.parametrize("name", ["", " ", "--"])
def test_class_name_that_says_nothing_is_refused(name):
    with pytest.raises(UserError, match="says nothing"):
        all_of(name)


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("the left arm", "the right arm"),
        ("leftmost zebra", "rightmost zebra"),
        ("left-hand side, right-most cup", "right-hand side, left-most cup"),
        ("lefthand lady, righthanded batter", "righthand lady, lefthanded batter"),
        ("Left of the RIGHT door", "Right of the LEFT door"),
        ("third from left to right", "third from right to left"),
        ("man (right), his left's end", "man (left), his right's end"),
        ("topleft screen, bottom-right one", "topright screen, bottom-left one"),
        ("guy on lft, girl rt", "guy on rgt, girl lt"),
        ("the man on the right next to the car", "the man on the left next to the car"),
        ("far right behind the fence", "far left behind the fence"),
        ("all left shoe", "all right shoe"),
        ("leftest zebra, Rightest one", "rightest zebra, Leftest one"),
        ("his rightarm and leftleg", "his leftarm and rightleg"),
        ("the leftman, RIGHTSIDE", "the rightman, LEFTSIDE"),
        ("toprightcorner of the bottomleftmost box", "topleftcorner of the bottomrightmost box"),
        ("L side man", "R side man"),
        ("lady on l side, guy r-side", "lady on r side, guy l-side"),
        ("second from leftabove the dog", "second from rightabove the dog"),
        ("a dolphin swimming right away from two", "a dolphin swimming left away from two"),
        ("the man on the right now", "the man on the left now"),
        ("all right arm", "all left arm"),
        ("all on the right", "all on the left"),
    ],
)
def test_sides_change_places_and_back(text, flipped):
    assert flip_sides(text) == flipped
    assert flip_sides(flipped) == text


@pytest.mark.parametrize(
    "text",
    [
        "the bright copyright sign",
        "an upright leftover on a lefty's plate",
        "the man sitting right next to the dog",
        "Right in front of the bus",
        "the one jumping right now",
        "the sign says all right",
        "all right, the big cup",
        "Alright sign, upright lamp, the copyright line, brightest light",
        "two zebras that r side by side",
        "a leftover, leftovers, lefty, righteous rights",
        "L shaped sofa, R. Kelly, vitamin r",
        "size XL side",
        "all hat",
        "",
    ],
)
def test_what_is_no_side_stays(text):
    assert flip_sides(text) == text


def test_the_sides_of_a_person_change_places():
    phrases = {name.label: name.phrase for name in class_names("lip")}
    swapped = {14: 15, 16: 17, 18: 19, 15: 14, 17: 16, 19: 18}
    for label, phrase in phrases.items():
        assert flip_sides(phrase) == phrases[swapped.get(label, label)]


def test_no_class_name_loses_its_meaning_by_a_flip():
    for table in tables():
        phrases = {name.phrase for name in class_names(table)}
        assert {flip_sides(phrase) for phrase in phrases} == phrases


def test_real_expressions_are_flipped_back_to_themselves(shared_dir):
    file = shared_dir / "data" / "ref_youtube_vos" / "meta_expressions" / "valid" / "meta_expressions.json"
    videos = json.loads(file.read_text(encoding="utf-8"))["videos"].values()
    texts = [expression["exp"] for video in videos for expression in video["expressions"].values()]
    assert [flip_sides(flip_sides(text)) for text in texts] == texts
    with_side = [text for text in texts if {"left", "right"} & set(text.lower().split())]
    stay = [text for text in with_side if flip_sides(text) == text]
    assert len(with_side) > 400
    assert stay == ["an ape right behind another one"]
