"""A sequence to be looked at."""

import cv2
import numpy as np
import pytest
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation import video_view
from unilseg_jax.evaluation.video_view import write_video_view
from unilseg_jax.interop import output


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nothing here writes on in the background, which is what is waited for when a file is given up."""
    monkeypatch.setattr(output, "_SECONDS_OF_REST", 0.0)


def sequence(count=5, size=(90, 160)):
    """Returns sandy frames; the prediction is in the left half, the truth in the right one."""
    height, width = size
    left, right = np.zeros(size, bool), np.zeros(size, bool)
    left[height // 3 : 2 * height // 3, : width // 2] = True
    right[height // 3 : 2 * height // 3, width // 2 :] = True
    frame = np.broadcast_to(np.array([200, 150, 100], np.uint8), (*size, 3))
    return [frame] * count, [left] * count, [right] * count


def read_gif(path):
    """Returns frames and durations in milliseconds."""
    frames, durations = [], []
    with Image.open(path) as gif:
        assert gif.format == "GIF"
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
            durations.append(gif.info["duration"])
    return frames, durations


def read_mp4(path):
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB).astype(int))
    return frames, video.get(cv2.CAP_PROP_FPS)


def check_tiles(frame, side, tolerance):
    """Checks the middle of each half of picture, prediction and truth: the mask is bright, the rest dim."""
    middle = frame.shape[0] // 2
    for tile, bright in enumerate(("left right", "left", "right")):
        for half, at in (("left", 0.25), ("right", 0.75)):
            level = frame[middle, round(tile * (side + 4) + at * side)]
            wanted = np.array([200, 150, 100]) * (1.0 if half in bright else 0.4)
            assert np.abs(level - wanted).max() <= tolerance, f"{half} half of tile {tile}"


def test_a_gif_has_every_frame_side_by_side(tmp_path):
    """Also frames that are equal, which the format's writer would put together."""
    path = tmp_path / "new" / "view.gif"
    frames, predictions, targets = sequence()
    write_video_view(path, iter(frames), iter(predictions), iter(targets), "the dog", 5.0)
    assert [entry.name for entry in path.parent.iterdir()] == ["view.gif"]
    drawn, durations = read_gif(path)
    assert len(drawn) == 5
    assert durations == [200] * 5
    width = 3 * 320 + 2 * 4
    for frame in drawn:
        assert frame.shape[1] == width
        assert 180 < frame.shape[0] < 180 + 70
        check_tiles(frame, 320, 12)


def test_the_truth_is_left_out_where_it_is_not_known(tmp_path):
    frames, predictions, _ = sequence(2)
    write_video_view(tmp_path / "view.GIF", frames, predictions, None, "the dog")
    drawn, _ = read_gif(tmp_path / "view.GIF")
    assert [frame.shape[1] for frame in drawn] == [2 * 320 + 4] * 2


def test_an_mp4_has_every_frame_side_by_side(tmp_path):
    path = tmp_path / "view.mp4"
    write_video_view(path, *sequence(7), "the dog", 5.0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["view.mp4"]
    drawn, speed = read_mp4(path)
    assert (len(drawn), speed) == (7, 5)
    for frame in drawn:
        assert frame.shape[1] == 3 * 480 + 2 * 4
        check_tiles(frame, 480, 12)


@pytest.mark.parametrize("ending", ["gif", "mp4"])
@pytest.mark.parametrize("size", [(31, 47), (600, 97), (1, 30)])
def test_frames_of_any_shape_and_any_phrase_can_be_shown(tmp_path, ending, size):
    path = tmp_path / f"view.{ending}"
    write_video_view(path, *sequence(2, size), "x " * 300 + "straße 木 🐕")
    drawn, _ = read_gif(path) if ending == "gif" else read_mp4(path)
    side = 320 if ending == "gif" else 480
    assert len(drawn) == 2
    assert drawn[0].shape[1] >= 3 * max(1, round(side * size[1] / max(size)))


def test_frames_of_another_size_than_the_first_are_brought_to_it(tmp_path):
    first, second = sequence(1), sequence(1, (45, 100))
    write_video_view(tmp_path / "view.gif", *(a + b for a, b in zip(first, second, strict=True)), "the dog")
    drawn, _ = read_gif(tmp_path / "view.gif")
    assert len(drawn) == 2
    assert drawn[0].shape == drawn[1].shape


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_frames_without_their_masks_are_refused_and_nothing_is_left(tmp_path, ending):
    frames, predictions, targets = sequence(4)
    for wrong in (
        (frames, predictions[:3], targets),
        (frames, predictions, targets[:2]),
        (frames[:1], predictions, None),
    ):
        with pytest.raises(ValueError, match="zip"):
            write_video_view(tmp_path / f"view.{ending}", *wrong, "the dog")
    other = [targets[0], np.zeros((91, 160), bool)]
    with pytest.raises(ValueError, match=r"the truth of frame 2 is \(91, 160\), the picture \(90, 160\)"):
        write_video_view(tmp_path / f"view.{ending}", frames[:2], predictions[:2], other, "the dog")
    with pytest.raises(ValueError, match="no frames"):
        write_video_view(tmp_path / f"view.{ending}", [], [], [], "the dog")
    with pytest.raises(ValueError, match="frames_per_second is 0"):
        write_video_view(tmp_path / f"view.{ending}", frames, predictions, None, "the dog", 0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["view", "view.avi", "gif", ".gif"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"does not end in \.gif or \.mp4"):
        write_video_view(tmp_path / name, *sequence(1), "the dog")


def test_a_machine_that_cannot_encode_mp4_is_told_to_write_a_gif(tmp_path, monkeypatch):
    class Closed:
        def __init__(self, *_):
            pass

        fourcc = staticmethod(lambda *_: 0)

        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr(video_view.cv2, "VideoWriter", Closed)
    with pytest.raises(UserError, match=r"cannot encode 'view\.mp4' on this machine; name a \.gif"):
        write_video_view(tmp_path / "view.mp4", *sequence(2), "the dog")
    assert not list(tmp_path.iterdir())
