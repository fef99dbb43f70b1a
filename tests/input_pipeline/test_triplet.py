"""The record: what goes in comes out, and what is wrong is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.input_pipeline.index import sample_count
from unilseg_jax.input_pipeline.stored_pictures import decode_image
from unilseg_jax.ops.masks import mask_to_rle


def encoded_picture(height=20, width=30, kind="PNG", mode="RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def a_mask(height=20, width=30, **fields) -> triplet.RecordMask:
    mask = np.zeros((height, width), np.uint8)
    mask[3:9, 4:14] = 1
    return triplet.RecordMask(counts=mask_to_rle(mask), box=(4.0, 3.0, 10.0, 6.0), **fields)


def a_record(**changes) -> dict:
    phrases = [
        triplet.RecordPhrase(text="the dog", mask_index=0, kind="referring"),
        triplet.RecordPhrase(text="le café", mask_index=-1, kind="nothing"),
    ]
    fields = {
        "image": encoded_picture(),
        "image_id": "one",
        "height": 20,
        "width": 30,
        "masks": [a_mask()],
        "phrases": phrases,
        "task": "referring",
        "source": "test",
        "licence": "none",
    }
    return triplet.encode_record(**(fields | changes))


def test_record_gives_back_picture_masks_and_phrases():
    decoded = triplet.decode_record(a_record())
    with Image.open(io.BytesIO(encoded_picture())) as picture:
        np.testing.assert_array_equal(decoded.image, np.asarray(picture))
    assert decoded.masks.shape == (1, 20, 30)
    assert decoded.masks.sum() == 60
    assert decoded.masks[0, 3:9, 4:14].all()
    assert decoded.image_id == "one"
    assert decoded.phrases == ("the dog", "le café")
    assert decoded.mask_index == (0, -1)
    assert decoded.kinds == ("referring", "nothing")
    assert not decoded.mask(1).any()


def test_picture_bytes_are_kept_as_they_came():
    encoded = encoded_picture(kind="JPEG")
    assert a_record(image=encoded)["image"].getvalue() == encoded


def test_record_has_exactly_the_fields_of_the_features():
    pytest.importorskip("tensorflow_datasets")
    assert set(triplet.features()) == set(a_record())


def test_record_without_masks_is_allowed():
    record = a_record(masks=[], phrases=[])
    assert record["mask_boxes"].shape == (0, 4)
    assert triplet.decode_record(record).masks.shape == (0, 20, 30)


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_schema_version_is_refused(version):
    record = a_record() | {"schema_version": version}
    if version is None:
        del record["schema_version"]
    with pytest.raises(UserError, match=f"schema version {version}.*version 1.*prepare"):
        triplet.decode_record(record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "guessing"}, "guessing"),
        ({"masks": [a_mask(kind="thing")]}, "thing"),
        ({"masks": [a_mask(height=21)]}, "630 pixels"),
        ({"masks": []}, "mask 0 of 0"),
        ({"phrases": [triplet.RecordPhrase(text=" ?! ", mask_index=0, kind="referring")]}, "says nothing"),
        ({"phrases": [triplet.RecordPhrase(text="", mask_index=0, kind="referring")]}, "says nothing"),
    ],
)
def test_inconsistent_record_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        a_record(**changes)


def test_record_whose_picture_is_of_another_size_is_refused():
    with pytest.raises(UserError, match="20 × 31"):
        triplet.decode_record(a_record(image=encoded_picture(width=31)))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = decode_image(encoded_picture(kind=kind, mode=mode))
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8


def test_grey_levels_of_16_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 128, 129, 257], [300, 32768, 65406, 65535]], np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    image = decode_image(buffer.getvalue())
    assert image[..., 0].tolist() == [[0, 0, 1, 1], [1, 128, 254, 255]]
    assert (image == image[..., :1]).all()


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded_picture(kind="JPEG", exif=exif)).shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_picture_is_refused(kind):
    encoded = encoded_picture(height=200, width=300, kind=kind)
    for length in (0, 10, 40, len(encoded) // 2):
        with pytest.raises(UserError, match="picture"):
            decode_image(encoded[:length])


def test_decompression_bomb_is_refused():
    header = bytearray(encoded_picture(height=1, width=1))
    # Width and height stand in bytes 16 to 24 of a PNG, their checksum in 29 to 33.
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(UserError, match=r"50000 × 50000|limit"):
        decode_image(bytes(header))


def test_phrase_ids_are_kept_and_missing_in_older_records():
    phrases = [triplet.RecordPhrase(text="a dog", mask_index=0, kind="referring", source_id="7")]
    record = a_record(phrases=phrases)
    assert triplet.decode_record(record).phrase_ids == ("7",)
    assert triplet.decode_record(a_record()).phrase_ids == ("", "")
    del record["phrase_ids"], record["phrase_objects"]
    assert triplet.decode_record(record).phrase_ids == ()


def test_phrase_without_ground_truth_has_no_mask_to_learn_from_or_score():
    unknown = triplet.RecordPhrase(text="a dog", mask_index=triplet.UNKNOWN, kind="referring")
    record = a_record(phrases=[unknown])
    assert sample_count(record["phrase_masks"]) == 0
    decoded = triplet.decode_record(record)
    assert decoded.mask_index == (triplet.UNKNOWN,)
    with pytest.raises(UserError, match="no ground truth for 'a dog' in 'one'"):
        decoded.mask(0)


@pytest.mark.parametrize("changes", [{"image_id": "a\udcff"}, {"video": "\ud800"}, {"frame": "\udcff"}])
def test_name_that_is_not_utf8_is_refused(changes):
    with pytest.raises(UserError, match="UTF-8"):
        a_record(**changes)


def test_half_a_surrogate_pair_is_no_phrase():
    assert not triplet.has_words("a dog \ud83d")
    assert triplet.has_words("a dog \U0001f415")
