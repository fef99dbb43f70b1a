"""Pictures of every common kind, and the broken ones, made on the fly."""

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import images
from unilseg_jax.input_pipeline.images import read_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def png(width, height, data, *, depth=8, colour=2, clear=b""):
    """A PNG file by the standard: `data` are its rows, each behind a zero; `clear` is its transparent colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *([(b"tRNS", clear)] if clear else []), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_a_path_a_pil_image_and_an_array_give_the_same(tmp_path, picture):
    path = saved(tmp_path, Image.fromarray(picture))
    for source in (path, str(path), Image.fromarray(picture), Image.open(path), picture):
        np.testing.assert_array_equal(read_image(source), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    # How the stored pixels must be turned to stand upright, by the EXIF standard; each line undoes it.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "a.jpg", exif=exif, quality=95)
    read = read_image(path)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() < 40


def test_broken_exif_data_do_not_matter(tmp_path, picture):
    path = saved(tmp_path, Image.fromarray(picture), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fjunk")
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_becomes_three_equal_channels(tmp_path, mode):
    grey = np.zeros((4, 5), np.uint8)
    grey[1:3] = 255
    path = saved(tmp_path, Image.fromarray(grey).convert(mode))
    np.testing.assert_array_equal(read_image(path), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 257, 65535], [128 * 257, 100, 200]], np.uint16)
    read = read_image(saved(tmp_path, Image.fromarray(values), name))
    np.testing.assert_array_equal(read[..., 0], [[0, 1, 255], [128, 0, 1]])
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


def test_thirty_two_bits_of_small_values_are_taken_as_they_are(tmp_path):
    values = np.array([[0, 100, 255]], np.int32)
    for source in (Image.fromarray(values), saved(tmp_path, Image.fromarray(values), "a.tiff")):
        np.testing.assert_array_equal(read_image(source)[..., 1], values)
    larger = np.array([[0, 257, 65535]], np.int32)
    np.testing.assert_array_equal(read_image(Image.fromarray(larger))[..., 1], [[0, 1, 255]])


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tiff"])
def test_a_file_of_sixteen_bits_stays_dark_where_all_its_values_are_small(tmp_path, name):
    read = read_image(saved(tmp_path, Image.fromarray(np.array([[0, 100, 255]], np.uint16)), name))
    np.testing.assert_array_equal(read[..., 0], [[0, 0, 1]])


def test_twelve_bits_are_scaled_by_their_own_white(tmp_path):
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    pixels = bytes.fromhex("000 fff 800 00f".replace(" ", ""))
    (tmp_path / "a.tiff").write_bytes(b"II*\0\x0e\0\0\0" + pixels + b"\x09\0" + entries + bytes(4))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff")[0, :, 0], [0, 255, 128, 1])


def test_thirty_two_bits_out_of_range_are_refused():
    with pytest.raises(UserError, match="values 0 to 70000"):
        read_image(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_floating_point_pixels_are_refused():
    with pytest.raises(UserError, match="floating-point"):
        read_image(Image.fromarray(np.ones((4, 4), np.float32)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new("RGBA", (4, 3), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 2, 3))
    read = read_image(clear.convert(mode))
    np.testing.assert_array_equal(read[0, 0], 0)
    np.testing.assert_array_equal(read[0, 3], 255)


@pytest.mark.parametrize(
    ("depth", "colour", "pixels", "clear", "wanted"),
    [
        (16, 0, "0000 4000 ffff", "4000", [0, 255, 255]),
        (8, 0, "00 40 80", "0040", [0, 255, 128]),
        (1, 0, "40", "0000", [255, 255, 255]),
        (16, 2, "000000000000 400041004200 404043004400", "400041004200", [0, 255, 64]),
    ],
)
def test_a_transparent_colour_of_any_depth_is_laid_on_white(tmp_path, depth, colour, pixels, clear, wanted):
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 1, b"\0" + bytes.fromhex(pixels), depth=depth, colour=colour, clear=bytes.fromhex(clear)))
    with Image.open(path) as opened:
        for source in (path, opened, opened):  # again: unpacked already
            np.testing.assert_array_equal(read_image(source)[0, :, 0], wanted)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palettes_work_with_and_without_transparency(tmp_path, name):
    indexed = Image.new("P", (4, 3))
    indexed.putpalette([*RED, 0, 0, 255])
    indexed.paste(1, (2, 0, 4, 3))
    read = read_image(saved(tmp_path, indexed, name))
    np.testing.assert_array_equal(read[0], [RED, RED, (0, 0, 255), (0, 0, 255)])
    read = read_image(saved(tmp_path, indexed, "clear-" + name, transparency=1))
    np.testing.assert_array_equal(read[0], [RED, RED, WHITE, WHITE])


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (8, 8), RED).convert("CMYK"), "a.jpg", quality=95)
    assert np.abs(read_image(path).astype(int) - RED).max() < 8


def test_a_cut_short_file_is_one_clear_line(tmp_path, picture):
    path = saved(tmp_path, Image.fromarray(np.tile(picture, (20, 20, 1))), "a.jpg")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"a\.jpg' is broken or cut short") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_a_user_error_or_a_picture(tmp_path, picture):
    for name in ("a.png", "a.gif", "a.webp", "a.tiff", "a.bmp"):
        whole = saved(tmp_path, Image.fromarray(picture), name).read_bytes()
        for length in range(0, len(whole), 7):
            (tmp_path / name).write_bytes(whole[:length])
            with contextlib.suppress(UserError):
                assert read_image(tmp_path / name).shape == picture.shape


def test_a_cut_short_pil_image_is_refused(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    image = Image.open(io.BytesIO(file.getvalue()[:-40]))
    with pytest.raises(UserError, match="cut short"):
        read_image(image)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"notes\.png' is not a picture"):
        read_image(tmp_path / "notes.png")


def test_postscript_is_not_run(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (4, 4)), "a.eps")
    with pytest.raises(UserError, match="is not a picture"):
        read_image(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such image"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(UserError, match="the path of the image is empty"):
        read_image("")


@pytest.mark.parametrize("size", [(20_000, 20_000), (13_400, 13_400), (40_000, 10)])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png(*size, b""))
    with pytest.raises(UserError, match=r"bomb\.png.*shrink it first"):
        read_image(tmp_path / "bomb.png")


def test_a_large_picture_below_the_limit_raises_no_warning(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    path = saved(tmp_path, Image.fromarray(picture))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path), picture)


def test_the_limit_holds_without_pillows_own(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "MAX_PIXELS", 50)
    with pytest.raises(UserError, match="9 x 6 px, at most 50"):
        read_image(saved(tmp_path, Image.fromarray(picture)))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_of_another_type_or_shape_are_refused(array):
    with pytest.raises(UserError, match=rf"{array.dtype} of shape .*uint8 RGB of shape \(h, w, 3\)"):
        read_image(array)
