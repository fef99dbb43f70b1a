"""JPEG files with a loss are told from whole ones, though every decoder fills the loss up."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, stand_ins
from unilseg_jax.input_pipeline.stored_pictures import decode_image
from unilseg_jax.input_pipeline.whole_jpeg import check_whole

END = b"\xff\xd9"


def encoded(kind="JPEG", mode="RGB", size=(120, 160), **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


KINDS = {
    "colours": encoded(),
    "grey": encoded(mode="L"),
    "CMYK": encoded(mode="CMYK"),
    "RGB inside": encoded(keep_rgb=True),
    "progressive": encoded(progressive=True),
    "restarts": encoded(restart_marker_blocks=5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_truncated_jpeg_that_ends_in_an_end_marker_is_refused(kind, share):
    whole = KINDS[kind]
    cut = whole[: int(len(whole) * share)] + END
    assert decode_image(cut).shape == (120, 160, 3), "the decoder sees nothing"
    with pytest.raises(UserError, match="the picture is broken: Corrupt JPEG data: premature end"):
        check_whole(cut)


def test_jpeg_whose_data_end_early_for_a_hole_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    whole = stand_ins.jpeg(np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))))
    holed = whole[:8000] + bytes(1000) + whole[9000:]
    assert decode_image(holed).shape == (240, 320, 3), "the decoder sees nothing"
    with pytest.raises(UserError, match="the picture is broken"):
        check_whole(holed)


def test_jpeg_that_lost_a_piece_between_restarts_is_refused():
    whole = KINDS["restarts"]
    start = whole.index(b"\xff\xd2")
    with pytest.raises(UserError, match="the picture is broken"):
        check_whole(whole[: start - 40] + whole[start + 2 :])


@pytest.mark.parametrize("kind", KINDS)
def test_whole_jpeg_passes(kind):
    check_whole(KINDS[kind])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5)])
def test_smallest_jpeg_passes(size):
    check_whole(encoded(size=size))


def test_harmless_bytes_too_many_pass():
    whole = KINDS["colours"]
    check_whole(whole[:-2] + b"\x01\x02\x03" + END)
    check_whole(whole + bytes(100))
    check_whole(whole[:20] + b"\x01\x02" + whole[20:])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_kinds_are_left_to_their_decoders(kind):
    check_whole(encoded(kind)[:500])


def test_what_is_no_jpeg_behind_its_first_bytes_is_left_to_the_decoder():
    check_whole(b"\xff\xd8\xff" + bytes(50))


def test_drawn_jpeg_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "mask.jpg"
    path.write_bytes(KINDS["grey"][:2000] + END)
    with pytest.raises(UserError, match=r"the mask is broken: .*premature end"):
        raw_files.read_mask(path, (120, 160))


def test_every_real_picture_passes(shared_dir):
    files = sorted((shared_dir / "data").rglob("*.jpg"))
    assert len(files) > 600
    for file in files[::5]:
        check_whole(file.read_bytes())
