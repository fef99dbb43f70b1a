"""The index of a prepared split, and the hash that finds copies of a picture."""

import io

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.input_pipeline.index import Index, IndexWriter, fingerprint, read_index, sample_count, write_index


def picture(seed=0, height=240, width=320):
    return stand_ins.draw(np.random.default_rng(seed), height, width, 3)[0]


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bits_apart(first, second):
    return (first ^ second).bit_count()


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: encoded(image, "JPEG", quality=50),
        lambda image: encoded(image, "WEBP", quality=75),
        lambda image: encoded(image.convert("L"), "PNG"),
        lambda image: encoded(image.resize((160, 120)), "JPEG", quality=75),
        lambda image: encoded(image.resize((960, 720)), "JPEG", quality=75),
        lambda image: encoded(image.resize((480, 480)), "PNG"),
    ],
    ids=["jpeg", "webp", "grey", "half", "threefold", "square"],
)
def test_a_copy_has_nearly_the_same_fingerprint(copy):
    for seed in range(5):
        image = Image.fromarray(picture(seed))
        assert bits_apart(fingerprint(encoded(image)), fingerprint(copy(image))) <= 4


def test_a_copy_of_16_bits_has_nearly_the_same_fingerprint():
    grey = picture()[..., 1]
    deep, usual = (encoded(Image.fromarray(values)) for values in (grey.astype(np.uint16) * 257, grey))
    assert bits_apart(fingerprint(deep), fingerprint(usual)) <= 4


def test_another_picture_has_another_fingerprint():
    prints = [fingerprint(encoded(Image.fromarray(picture(seed)))) for seed in range(10)]
    apart = [bits_apart(first, second) for place, first in enumerate(prints) for second in prints[:place]]
    assert min(apart) > 4


def test_samples_are_named_masks_and_phrases_that_match_nothing():
    assert sample_count(np.array([0, 0, 2, -1, -1])) == 4
    assert sample_count(np.array([], np.int32)) == 0


def test_an_index_is_read_as_it_was_written(tmp_path):
    writer = IndexWriter()
    for number in range(3):
        image = encoded(Image.fromarray(picture(number)))
        # Builders hand over a file object, readers give bytes.
        image = io.BytesIO(image) if number else image
        writer.add(
            {
                "image": image,
                "coco_id": 7 * number - 1,
                "phrase_masks": np.zeros(number, np.int32),
                "image_id": str(number),
            }
        )
    writer.write(tmp_path, "val")
    index = read_index(tmp_path, "val")
    assert index.samples.tolist() == [0, 1, 1]
    assert index.coco_id.tolist() == [-1, 6, 13]
    assert index.fingerprint.tolist() == [fingerprint(encoded(Image.fromarray(picture(n)))) for n in range(3)]
    assert [array.dtype for array in index] == [np.uint16, np.int64, np.uint64]
    assert [path.name for path in tmp_path.iterdir()] == ["index-val.npz"]


def test_an_index_without_records_keeps_its_types(tmp_path):
    IndexWriter().write(tmp_path, "val")
    index = read_index(tmp_path, "val")
    assert [(array.size, array.dtype) for array in index] == [(0, np.uint16), (0, np.int64), (0, np.uint64)]


def test_a_missing_index_is_none_and_a_damaged_one_is_named(tmp_path):
    assert read_index(tmp_path, "val") is None
    write_index(tmp_path, "val", Index(np.ones(4, np.uint16), np.ones(4, np.int64), np.ones(4, np.uint64)))
    file = tmp_path / "index-val.npz"
    whole = file.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no archive"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"index-val\.npz' is damaged"):
            read_index(tmp_path, "val")
