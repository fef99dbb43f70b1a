"""Phrases: every table of class names, how names are cleaned, and sides exchanged for mirrored pictures."""

import csv
import json
import re

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.text import prompts
from unilseg_jax.text.prompts import all_of, class_names, clean, flip_sides, tables

# The labels as the data sets' authors number them.
LABELS = {
    "ade20k": set(range(1, 151)),
    "pascal_context59": set(range(1, 60)),
}


def test_every_table_is_known_to_this_test():
    assert set(tables()) == set(LABELS)


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


def test_native_names_of_ade20k_are_those_of_its_list(shared_dir):
    file = shared_dir / "data" / "ADEChallengeData2016" / "objectInfo150.txt"
    with open(file, encoding="utf-8") as lines:
        rows = [(int(row["Idx"]), row["Name"].strip()) for row in csv.DictReader(lines, delimiter="\t")]
    assert [(name.label, name.native) for name in class_names("ade20k")] == rows


def test_native_names_of_pascal_context_are_those_of_its_list(shared_dir):
    with open(shared_dir / "data" / "label_lists" / "pascal_context_59.tsv", encoding="utf-8") as lines:
        rows = [(int(row["index_in_60_class_png"]), row["name"]) for row in csv.DictReader(lines, delimiter="\t")]
    assert [(name.label, name.native) for name in class_names("pascal_context59")] == rows


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
        "all hat",
        "",
    ],
)
def test_what_is_no_side_stays(text):
    assert flip_sides(text) == text


def test_the_sides_of_the_real_part_names_change_places(shared_dir):
    with open(shared_dir / "data" / "label_lists" / "lip_20.tsv", encoding="utf-8") as lines:
        names = {int(row["label"]): clean(row["name"]) for row in csv.DictReader(lines, delimiter="\t")}
    pairs = {14: 15, 16: 17, 18: 19}
    for label, name in names.items():
        assert flip_sides(name) == names[{**pairs, **{b: a for a, b in pairs.items()}}.get(label, label)]


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
