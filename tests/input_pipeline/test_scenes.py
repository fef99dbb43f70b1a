"""Scenes: every phrase is read again by a small parser of its own and held against the scene's objects."""

import colorsys
import itertools

import cv2
import numpy as np
import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.scenes import KINDS, Scene, SceneSource, draw_scene
from unilseg_jax.input_pipeline.triplet import Triplet

SIZE = 96
NUM_SCENES = 150
PARTS = {"car": ("body", "window", "wheel"), "house": ("wall", "roof", "door"), "tree": ("trunk", "crown")}
HUES = {"red": 0, "orange": 30, "yellow": 53, "green": 130, "blue": 227, "purple": 285}
BETWEEN = {
    "to the left of": "left",
    "on the left side of": "left",
    "left of": "left",
    "to the right of": "right",
    "on the right side of": "right",
    "right of": "right",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
}
PLACES = {"on the left": "left", "on the right": "right", "at the top": "above", "at the bottom": "below"}
PLACES |= {"leftmost": "left", "rightmost": "right", "topmost": "above", "lowest": "below"}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


@pytest.fixture(scope="module")
def samples() -> list[tuple[Scene, Triplet]]:
    source = SceneSource(num_scenes=NUM_SCENES, seed=3, size=SIZE)
    return [(draw_scene(3, index, SIZE), source[index]) for index in range(NUM_SCENES)]


def centre(mask: np.ndarray) -> tuple[float, float]:
    """Returns the middle of the mask's box, (x, y)."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2


def matching(scene: Scene, description: str) -> set[int]:
    """Returns the objects that a description like "the small red circle" or "red object" fits."""
    words = description.removeprefix("the ").split()
    fit = set()
    for number, thing in enumerate(scene.objects):
        known = {thing.size, thing.texture, thing.colour, thing.category, "object"}
        if known.issuperset(words):
            fit.add(number)
    return fit


def lean(scene: Scene, target: int, anchor: int, direction: str) -> tuple[float, float]:
    """Returns how far the target's mask lies from the anchor's in a direction, and across it."""
    (tx, ty), (ax, ay) = centre(scene.objects[target].mask), centre(scene.objects[anchor].mask)
    dx, dy = DIRECTIONS[direction]
    return (tx - ax) * dx + (ty - ay) * dy, abs((tx - ax) * dy) + abs((ty - ay) * dx)


def read_relation(scene: Scene, text: str) -> tuple[set[int], set[int], bool]:
    """Returns (objects that fit the description, those that also stand so, whether it has an anchor)."""
    for words, direction in BETWEEN.items():
        if f" {words} the " in text:
            left, right = text.split(f" {words} the ")
            candidates, (anchor,) = matching(scene, left), matching(scene, right)
            leans = {n: lean(scene, n, anchor, direction) for n in candidates}
            # A target lies mainly in the direction, and nobody else of its description lies that way at all.
            stands = {n for n, (along, across) in leans.items() if along > max(0.12 * SIZE, across)}
            assert all(along < 0.06 * SIZE for n, (along, _) in leans.items() if n not in stands), text
            return candidates, stands, True
    for words, direction in PLACES.items():
        if words in text:
            candidates = matching(scene, " ".join(text.replace(words, "").split()))
            dx, dy = DIRECTIONS[direction]
            far = {n: np.dot(centre(scene.objects[n].mask), (dx, dy)) for n in candidates}
            return candidates, {n for n in far if far[n] > max(far.values()) - 0.1 * SIZE}, False
    raise AssertionError(f"no relation in {text!r}")


def phrases_of(samples, kind: str):
    for scene, triplet in samples:
        for number, (text, its_kind) in enumerate(zip(triplet.phrases, triplet.kinds, strict=True)):
            if its_kind == kind:
                yield scene, text, triplet.mask(number)


def test_same_index_gives_same_scene():
    source = SceneSource(num_scenes=5, seed=7)
    first = source[4]
    _ = source[0]
    again = SceneSource(num_scenes=9, seed=7)[np.int64(4)]
    assert first.image_id == again.image_id == "scene-7-4"
    assert (first.phrases, first.mask_index, first.kinds) == (again.phrases, again.mask_index, again.kinds)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)


def test_seeds_share_no_scene():
    pictures = [SceneSource(num_scenes=60, seed=seed)[i].image.tobytes() for seed in (0, 1) for i in range(60)]
    assert len(set(pictures)) == 120


@pytest.mark.parametrize(
    "fields", [{"num_scenes": 0}, {"size": 63}, {"seed": -1}, {"seed": 2**64}], ids=lambda fields: str(fields)
)
def test_field_out_of_range_is_a_user_error(fields):
    with pytest.raises(UserError, match="wanted"):
        SceneSource(**{"num_scenes": 3, "seed": 0, "size": 96, **fields})


def test_index_outside_is_an_index_error():
    source = SceneSource(num_scenes=3, seed=0)
    assert len(source) == 3
    assert len(list(source)) == 3
    for index in (3, -1):
        with pytest.raises(IndexError):
            source[index]


@pytest.mark.parametrize("size", [64, 96, 161])
def test_triplet_is_well_formed(size):
    for triplet in SceneSource(num_scenes=20, seed=1, size=size):
        assert triplet.image.shape == (size, size, 3)
        assert triplet.masks.shape[1:] == (size, size)
        assert set(np.unique(triplet.masks)) == {0, 1}
        assert len(triplet.phrases) == len(triplet.mask_index) == len(triplet.kinds)
        assert len(set(triplet.phrases)) == len(triplet.phrases)
        assert set(triplet.kinds) <= set(KINDS)
        assert set(triplet.mask_index) - {-1} == set(range(len(triplet.masks)))


def test_scene_looks_alike_at_every_size():
    small, large = draw_scene(0, 5, 96), draw_scene(0, 5, 192)
    assert [phrase.text for phrase in small.phrases] == [phrase.text for phrase in large.phrases]
    for one, other in zip(small.objects, large.objects, strict=True):
        assert other.mask.sum() == pytest.approx(4 * one.mask.sum(), rel=0.2)


def test_mask_is_empty_only_where_nothing_fits(samples):
    for _, triplet in samples:
        for number, kind in enumerate(triplet.kinds):
            assert (triplet.mask_index[number] == -1) == (kind == "nothing")
            assert triplet.mask(number).any() == (kind != "nothing")


def test_objects_are_apart_and_inside(samples):
    for scene, _ in samples:
        assert 3 <= len(scene.objects) <= 4
        assert np.sum([thing.mask for thing in scene.objects], axis=0).max() == 1
        for thing in scene.objects:
            border = np.concatenate([thing.mask[0], thing.mask[-1], thing.mask[:, 0], thing.mask[:, -1]])
            assert not border.any()
            height, width = np.ptp(np.nonzero(thing.mask), axis=1) + 1
            low, high = {"small": (17, 28), "large": (27, 42)}[thing.size]
            assert low <= max(height, width) <= high


def test_every_kind_occurs_often(samples):
    shares = {kind: np.mean([kind in triplet.kinds for _, triplet in samples]) for kind in KINDS}
    assert min(shares[kind] for kind in ("attribute", "category", "nothing")) == 1
    assert shares["relation"] > 0.97
    assert shares["part"] > 0.6
    assert shares["salient"] > 0.5


def test_attribute_fits_its_object_only(samples):
    for scene, text, mask in phrases_of(samples, "attribute"):
        (number,) = matching(scene, text)
        np.testing.assert_array_equal(mask, scene.objects[number].mask)


def test_attributes_mostly_have_to_be_read(samples):
    """Most targets share their category or colour with another object."""
    shares = []
    for scene, text, _ in phrases_of(samples, "attribute"):
        (number,) = matching(scene, text)
        target = scene.objects[number]
        shares.append(len(matching(scene, target.category)) > 1 or len(matching(scene, target.colour)) > 1)
    assert np.mean(shares) > 0.7


def test_relation_is_needed_and_unique(samples):
    anchored = []
    for scene, text, mask in phrases_of(samples, "relation"):
        candidates, (number,), has_anchor = read_relation(scene, text)
        assert len(candidates) >= 2, text
        np.testing.assert_array_equal(mask, scene.objects[number].mask)
        anchored.append(has_anchor)
    assert 0.5 < np.mean(anchored) < 0.95


def test_scenes_have_twins_on_two_sides(samples):
    """In many scenes one description fits the targets of opposite relations to one anchor."""
    shares = []
    for scene, _ in samples:
        numbers = range(len(scene.objects))
        shares.append(
            any(
                (one.category, one.colour) == (other.category, other.colour)
                and lean(scene, a, n, direction)[0] > 0.15 * SIZE
                and lean(scene, b, n, opposite)[0] > 0.15 * SIZE
                for direction, opposite in (("left", "right"), ("above", "below"))
                for (a, one), (b, other) in itertools.permutations(enumerate(scene.objects), 2)
                for n in set(numbers) - {a, b}
            )
        )
    assert np.mean(shares) > 0.4


def test_category_is_the_union_of_its_objects(samples):
    for scene, text, mask in phrases_of(samples, "category"):
        members = matching(scene, text.removeprefix("all "))
        np.testing.assert_array_equal(mask, np.any([scene.objects[n].mask for n in members], axis=0))


def test_parts_tile_their_object(samples):
    for scene, _ in samples:
        for thing in scene.objects:
            assert set(thing.parts) == set(PARTS.get(thing.category, ()))
            if thing.parts:
                assert all(part.any() for part in thing.parts.values())
                np.testing.assert_array_equal(np.sum(list(thing.parts.values()), axis=0), thing.mask)


def test_part_phrase_names_the_part(samples):
    for scene, text, mask in phrases_of(samples, "part"):
        if text.startswith("all "):
            part = text.removeprefix("all ")
            owners = [thing for thing in scene.objects if part in thing.parts]
        else:
            part, owner = text.removeprefix("the ").split(" of ")
            part = part.removesuffix("s")
            (number,) = matching(scene, owner)
            owners = [scene.objects[number]]
        np.testing.assert_array_equal(mask, np.any([thing.parts[part] for thing in owners], axis=0))


def test_salient_object_is_large_and_the_only_ringed_one(samples):
    for scene, _, mask in phrases_of(samples, "salient"):
        (target,) = [thing for thing in scene.objects if thing.salient]
        np.testing.assert_array_equal(mask, target.mask)
        assert target.size == "large"
        for thing in scene.objects:
            around = cv2.dilate(thing.mask, np.ones((3, 3), np.uint8)) - thing.mask
            white = (scene.image[around > 0].min(axis=1) > 190).mean()
            assert white > 0.65 if thing.salient else white < 0.2


def test_nothing_fits_nothing(samples):
    forms = set()
    for scene, text, _ in phrases_of(samples, "nothing"):
        present = {thing.category for thing in scene.objects}
        head = text.split(" ")[1]
        part = head if head in itertools.chain(*PARTS.values()) else head.removesuffix("s")
        owner = next((category for category, parts in PARTS.items() if part in parts), None)
        relation = next((words for words in BETWEEN if f" {words} the " in text), None)
        if text.startswith("all "):
            assert (owner or head) not in present
        elif owner:
            assert not matching(scene, text.split(" of ")[1])
        else:
            assert not matching(scene, text.split(f" {relation} the ")[0] if relation else text)
        forms.add((text.startswith("all "), owner is not None, relation is not None))
    assert len(forms) == 5


def test_mask_covers_pixels_of_the_named_colour():
    """Hue of the median pixel, over the object without its dull parts."""
    for index in range(60):
        scene = draw_scene(4, index, SIZE)
        for thing in scene.objects:
            part = {"car": "body", "house": "wall", "tree": "crown"}.get(thing.category)
            mask = thing.parts[part] if part else thing.mask
            pixels = scene.image[mask > 0] / 255
            hue, *_ = colorsys.rgb_to_hsv(*np.median(pixels, axis=0))
            apart = {name: abs((360 * hue - angle + 180) % 360 - 180) for name, angle in HUES.items()}
            assert min(apart, key=apart.get) == thing.colour
            assert np.percentile(np.ptp(pixels, axis=1), 70) > 0.2
        background = ~np.any([thing.mask for thing in scene.objects], axis=0)
        pixels = scene.image[background].astype(int)
        assert np.percentile(np.ptp(pixels, axis=1), 75) < 60


def test_phrases_are_short(samples):
    tokenizer = pytest.importorskip("instant_clip_tokenizer").Tokenizer()
    texts = {text for _, triplet in samples for text in triplet.phrases}
    # Start and end of text count too.
    assert max(len(tokenizer.encode(text)) + 2 for text in texts) <= 14
