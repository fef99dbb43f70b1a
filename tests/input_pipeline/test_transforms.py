"""The stages from a visit to the network's input."""

import collections
import io

import cv2
import numpy as np
import pytest
from memory_records import SIDE, MemoryRecords
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import stand_ins, stored_pictures, transforms
from unilseg_jax.input_pipeline.index import sample_count
from unilseg_jax.input_pipeline.transforms import Decode, Flip, HideAndSeek, Shown, Tokenize, ToSquare, make_stages
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.input_pipeline.visits import DrawPhrases, Visit, draw_phrases, sample_phrases
from unilseg_jax.ops.geometry import normalise
from unilseg_jax.text.tokenizer import tokenize

KINDS = ("attribute",) * 10 + ("relation", "nothing")


def picture(number, *, kinds=KINDS, size=(8, 8)) -> Triplet:
    """Returns a picture of one grey value, its number; its last phrase names nothing, each other a row of pixels."""
    masks = np.zeros((len(kinds), *size), np.uint8)
    for row in range(len(kinds) - 1):
        masks[row, row % size[0]] = 1
    return Triplet(
        image_id=str(number),
        image=np.full((*size, 3), number, np.uint8),
        masks=masks,
        phrases=tuple(f"thing {index} of {number}" for index in range(len(kinds))),
        mask_index=(*range(len(kinds) - 1), -1) if kinds else (),
        kinds=kinds,
    )


def run(visit, *, seed=0, **options):
    """Takes a visit through all stages."""
    element, rng = visit, np.random.default_rng(seed)
    for stage in make_stages(**{"size": 8, "prompts": 2, "word_len": 14, "resize": "stretch", **options}):
        element = stage.random_map(element, rng) if hasattr(stage, "random_map") else stage.map(element)
    return element


def shown(image, *, masks=(), phrases=(), hide=False):
    return Shown(image=image, phrases=tuple(phrases), masks=list(masks), valid=np.ones(len(phrases), bool), hide=hide)


# ---- Phrases -------------------------------------------------------------------------------------------


def test_phrases_are_drawn_evenly_over_kinds():
    """One of ten attributes, the relation and the phrase for nothing come equally often."""
    rng, counts, attributes = np.random.default_rng(0), collections.Counter(), collections.Counter()
    for _ in range(3000):
        ((number,), valid) = draw_phrases(picture(0), 1, rng)
        assert valid.tolist() == [True]
        counts[KINDS[number]] += 1
        attributes[number] += 1
    assert all(900 < count < 1100 for count in counts.values())
    assert len(counts) == 3
    assert all(60 < attributes[number] < 140 for number in range(10))


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_comes_before_any_comes_twice(seed):
    drawn, valid = draw_phrases(picture(0), 5, np.random.default_rng(seed))
    assert valid.all()
    assert len(set(drawn)) == 5
    assert {KINDS[number] for number in drawn[:3]} == set(KINDS)
    assert [KINDS[number] for number in drawn[3:]] == ["attribute"] * 2


@pytest.mark.parametrize("seed", range(3))
def test_repeats_fill_up_and_are_marked(seed):
    drawn, valid = draw_phrases(picture(0, kinds=("attribute", "nothing")), 5, np.random.default_rng(seed))
    assert valid.tolist() == [True, True, False, False, False]
    assert sorted(drawn[:2]) == [0, 1]
    assert drawn[2:] == [drawn[0], drawn[1], drawn[0]]


def test_a_picture_without_phrases_is_one_clear_line():
    with pytest.raises(UserError, match="the picture '7' has no phrase"):
        draw_phrases(picture(7, kinds=()), 2, np.random.default_rng(0))


def test_samples_are_named_masks_and_phrases_for_nothing():
    """Mask 1 has no phrase, and what phrase 3 matches is not known."""
    phrase_masks = np.array([2, -1, 0, -2, 2, -1], np.int32)
    found = sample_phrases(phrase_masks)
    assert found == [[2], [0, 4], [1], [5]]
    assert len(found) == sample_count(phrase_masks)


def test_phrases_of_one_absent_object_are_one_sample():
    """Object 5 is there, objects 9 and 3 are not, and two phrases say of none which one they mean."""
    phrase_masks, objects = [-1, -1, 0, -1, -1, -1, 0, -2], [9, -1, 5, 3, 9, -1, 5, 9]
    found = sample_phrases(phrase_masks, objects)
    assert found == [[2, 6], [0, 4], [1], [3], [5]]
    assert len(found) == sample_count(phrase_masks, objects)
    assert sample_count(phrase_masks) == 6, "records without the field"


def test_each_phrase_of_an_object_is_drawn():
    record = MemoryRecords(1, [3], nothing=1).record(0)
    stage, rng, seen = DrawPhrases(prompts=2), np.random.default_rng(0), collections.Counter()
    for _ in range(200):
        asked = stage.random_map(Visit(picture=record, samples=(1, 3)), rng)
        assert asked.masks == (1, -1)
        assert asked.valid.tolist() == [True, True]
        seen[asked.phrases] += 1
    assert set(seen) == {("all class b", "no 0"), ("every class b", "no 0")}
    assert all(70 < count < 130 for count in seen.values())


def test_too_few_samples_are_filled_up():
    record = MemoryRecords(1, [3]).record(0)
    asked = DrawPhrases(prompts=3).random_map(Visit(picture=record, samples=(2,)), np.random.default_rng(0))
    assert asked.masks == (2, 2, 2)
    assert len(set(asked.phrases)) == 1
    assert asked.valid.tolist() == [True, False, False]


def test_absent_phrases_have_empty_masks():
    record = MemoryRecords(1, [3]).record(0)
    result = run(Visit(picture=record, samples=(0,), absent=("all class z",)))
    assert not result["mask"].any()
    assert result["valid"].tolist() == [True, False]
    np.testing.assert_array_equal(result["tokens"], tokenize(["all class z"] * 2, 14))


# ---- Pictures and masks --------------------------------------------------------------------------------


def test_tokens_and_masks_belong_together():
    triplet_ = picture(9)
    result = run(Visit(picture=triplet_, hide=False), prompts=6)
    phrases = [row.tobytes() for row in tokenize(list(triplet_.phrases), 14)]
    for row, mask in zip(result["tokens"], result["mask"], strict=True):
        np.testing.assert_array_equal(mask, triplet_.mask(phrases.index(row.tobytes())))
    assert (result["image"] == 9).all()


def test_letterboxed_masks_stay_with_their_pictures():
    """A picture twice as wide as high leaves a quarter above and below free of any mask."""
    triplet_ = picture(0, kinds=("category", "nothing"), size=(8, 16))
    triplet_.masks[0] = 1
    result = run(Visit(picture=triplet_, hide=False), size=32, resize="letterbox")
    full = result["mask"][result["mask"].any(axis=(1, 2))]
    assert full.shape[0] == 1
    # Up to the last columns: the corners of the outer pixels are mapped on one another.
    assert full[0, 10:22, :28].all()
    assert not full[0, :7].any()
    assert not full[0, 25:].any()


def test_only_bytes_leave_the_stages():
    result = run(Visit(picture=MemoryRecords(1, [2]).record(0), samples=(0, 1)))
    assert {name: (array.shape, array.dtype.name) for name, array in result.items()} == {
        "image": ((SIDE, SIDE, 3), "uint8"),
        "tokens": ((2, 14), "int32"),
        "mask": ((2, SIDE, SIDE), "uint8"),
        "valid": ((2,), "bool"),
    }


def saved(mode, size=(37, 53), **options):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (*size, 4), dtype=np.uint8), (0, 0), 1.5)
    buffer = io.BytesIO()
    Image.fromarray(noise[..., :3]).convert(mode).save(buffer, **options)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    return saved("RGB", format="JPEG", exif=exif.tobytes())


ENCODED = {
    "4:2:0": saved("RGB", format="JPEG", quality=75, subsampling=2),
    "4:4:4": saved("RGB", format="JPEG", quality=95, subsampling=0),
    "progressive": saved("RGB", format="JPEG", progressive=True),
    "grey": saved("L", format="JPEG"),
    "CMYK": saved("CMYK", format="JPEG"),
    "EXIF": turned(),
    "PNG": saved("RGB", format="PNG"),
    "palette": saved("P", format="PNG"),
    "16 bits": cv2.imencode(".png", np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300)[1].tobytes(),
    "bytes after the end": saved("RGB", format="JPEG") + b"\0\0",
}


@pytest.mark.parametrize("name", ENCODED)
def test_pictures_decode_to_the_pixels_that_the_builders_saw(name):
    np.testing.assert_array_equal(transforms.decode_stored(ENCODED[name]), stored_pictures.decode_image(ENCODED[name]))


def test_real_pictures_decode_to_the_pixels_that_the_builders_saw(shared_dir):
    files = sorted((shared_dir / "data" / "refer").rglob("*.jpg"))[:12]
    assert files
    for file in files:
        encoded = file.read_bytes()
        np.testing.assert_array_equal(transforms.decode_stored(encoded), stored_pictures.decode_image(encoded))


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: data[:40] + b"\xff\xd9"])
def test_a_picture_that_broke_on_disk_is_named_and_not_trained_on(spoil):
    record = dict(MemoryRecords(1, [1]).record(0), image=spoil(stand_ins.jpeg(np.zeros((SIDE, SIDE, 3), np.uint8))))
    asked = DrawPhrases(prompts=1).random_map(Visit(picture=record, samples=(0,)), np.random.default_rng(0))
    with pytest.raises(UserError, match=r"^picture '0' of memory/1: the picture is"):
        Decode().map(asked)


def test_a_picture_of_another_size_than_its_record_is_refused():
    record = dict(MemoryRecords(1, [1]).record(0), image=stand_ins.jpeg(np.zeros((4, 9, 3), np.uint8)))
    asked = DrawPhrases(prompts=1).random_map(Visit(picture=record, samples=(0,)), np.random.default_rng(0))
    with pytest.raises(UserError, match=r"the picture is 4 × 9, its record says 8 × 8"):
        Decode().map(asked)


# ---- Flip ----------------------------------------------------------------------------------------------


def test_a_mirrored_picture_has_left_and_right_swapped_everywhere():
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    mask = np.zeros((6, 9), np.uint8)
    mask[2, 0] = 1
    element = shown(image, masks=[mask, None], phrases=["the man on the left", "the right arm"])
    result = Flip(probability=1.0).random_map(element, np.random.default_rng(0))
    np.testing.assert_array_equal(result.image, image[:, ::-1])
    assert np.argwhere(result.masks[0]).tolist() == [[2, 8]]
    assert result.masks[1] is None
    assert result.phrases == ("the man on the right", "the left arm")
    twice = Flip(probability=1.0).random_map(result, np.random.default_rng(0))
    np.testing.assert_array_equal(twice.image, image)
    assert twice.phrases == element.phrases


def test_flips_come_as_often_as_asked():
    element = shown(np.arange(9, dtype=np.uint8).reshape(1, 3, 3))
    rng, stage = np.random.default_rng(0), Flip(probability=0.3)
    flipped = sum(stage.random_map(element, rng) is not element for _ in range(1000))
    assert 260 < flipped < 340


def test_nothing_is_flipped_by_default():
    assert not any(isinstance(stage, Flip) for stage in make_stages(size=8, prompts=1, word_len=9, resize="stretch"))


# ---- Hide-and-seek -------------------------------------------------------------------------------------


def hidden_patches(seed, *, size=48, grid=6, probability=0.2, hide=True):
    """Returns which patches of a white picture were hidden; each is hidden whole or not at all."""
    element = shown(np.full((size, size, 3), 255, np.uint8), hide=hide)
    result = HideAndSeek(grid=grid, probability=probability).random_map(element, np.random.default_rng(seed))
    side = size // grid
    patches = result.image.reshape(grid, side, grid, side, 3).transpose(0, 2, 1, 3, 4).reshape(grid, grid, -1, 3)
    hidden = (patches == transforms.MEAN_COLOUR).all((2, 3))
    assert (hidden | (patches == 255).all((2, 3))).all()
    return hidden


def test_patches_are_hidden_with_the_probability():
    """Of 200 × 36 patches a fifth; the bound is four standard deviations."""
    hidden = np.array([hidden_patches(seed) for seed in range(200)])
    assert hidden.mean() == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / hidden.size) ** 0.5)
    assert (hidden.mean(0) > 0.08).all(), "each place has its turn"
    np.testing.assert_array_equal(hidden_patches(3), np.random.default_rng(3).random((6, 6)) < 0.2)


def test_hidden_patches_are_grey_to_the_network():
    element = shown(np.full((4, 4, 3), 255, np.uint8), hide=True)
    image = HideAndSeek(grid=1, probability=1.0).random_map(element, np.random.default_rng(0)).image
    assert np.abs(normalise(image)).max() < 0.5 / 255 / 0.26
    assert (element.image == 255).all(), "the picture itself is not written to"


def test_a_grid_that_does_not_divide_the_picture_covers_it():
    element = shown(np.full((50, 50, 3), 255, np.uint8), hide=True)
    image = HideAndSeek(grid=7, probability=1.0).random_map(element, np.random.default_rng(0)).image
    assert (image == transforms.MEAN_COLOUR).all()


@pytest.mark.parametrize(
    ("score", "wish", "hides"), [(1.0, None, False), (0.9, None, True), (1.0, True, True), (0.9, False, False)]
)
def test_pseudo_labels_are_hidden_from_by_default(score, wish, hides):
    """Also where nothing is to be found: hidden patches must not tell that something is."""
    record = MemoryRecords(1, [2], nothing=1, score=score).record(0)
    for more in ({"samples": (0,)}, {"samples": (2,)}, {"samples": (0,), "absent": ("all class z",)}):
        visit = Visit(picture=record, hide=wish, **more)
        assert DrawPhrases(prompts=1).random_map(visit, np.random.default_rng(0)).hide is hides


def test_what_is_asked_for_stays_where_it_was_hidden():
    visit = Visit(picture=MemoryRecords(1, [2]).record(0), samples=(0, 1), hide=True)
    result = run(visit, hide_grid=2, hide_probability=1.0)
    assert (result["image"] == transforms.MEAN_COLOUR).all()
    assert result["mask"].sum(axis=(1, 2)).tolist() == [1, 1]


def test_stages_come_in_their_order():
    stages = make_stages(size=8, prompts=1, word_len=9, resize="stretch", flip=0.5)
    assert [type(stage) for stage in stages] == [DrawPhrases, Decode, Flip, ToSquare, HideAndSeek, Tokenize]
