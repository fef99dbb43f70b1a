"""What a run leaves behind while it goes."""

import io
import json

import pytest
from rich.console import Console

from unilseg_jax.training.writer import METRICS_FILE, MetricWriter, ProgressLine


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def write(folder, first_step, *entries):
    writer = MetricWriter(folder, first_step, 100)
    for step, values in entries:
        writer.write(step, values)
    writer.close()


def test_numbers_are_written_by_step_and_for_tensorboard(tmp_path):
    write(tmp_path, 0, (1, {"train/loss": 2.5}), (2, {"train/loss": 1.5, "train/bce": 0.5}))
    assert lines(tmp_path) == [{"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": 1.5, "train/bce": 0.5}]
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/bce" in events.read_bytes()


def test_a_line_is_on_disk_at_once(tmp_path):
    writer = MetricWriter(tmp_path, 0, 100)
    writer.write(1, {"train/loss": 2.5})
    assert lines(tmp_path) == [{"step": 1, "train/loss": 2.5}]
    writer.close()


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    write(tmp_path, 0, (1, {"val/oiou": float("nan"), "val/miou": float("inf"), "val/count": 3}))
    assert lines(tmp_path) == [{"step": 1, "val/oiou": None, "val/miou": None, "val/count": 3}]


def test_evaluations_after_the_last_step_are_dropped_since_they_are_made_again(tmp_path):
    write(tmp_path, 0, (50, {"val/oiou": 0.5}), (100, {"train/loss": 1.0}), (100, {"val/oiou": 0.6}))
    write(tmp_path, 100)
    assert lines(tmp_path) == [{"step": 50, "val/oiou": 0.5}, {"step": 100, "train/loss": 1.0}]


def test_a_resumed_run_drops_the_steps_it_takes_again(tmp_path):
    write(tmp_path, 0, *((step, {"train/loss": float(step)}) for step in (1, 2, 3, 4)))
    write(tmp_path, 2, (3, {"train/loss": 30.0}))
    assert [(line["step"], line["train/loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


@pytest.mark.parametrize("rest", ['{"step": 2, "train/lo', "{}", ""])
def test_a_line_cut_short_is_dropped(tmp_path, rest):
    (tmp_path / METRICS_FILE).write_text('{"step": 1, "train/loss": 2.0}\n' + rest)
    write(tmp_path, 5, (6, {"train/loss": 1.0}))
    assert [line["step"] for line in lines(tmp_path)] == [1, 6]
    assert not list(tmp_path.glob("*.partial"))


def test_progress_in_plain_lines(capsys):
    with ProgressLine(10, 100, batch_size=4) as progress:
        assert progress.update(20, 1.25) > 0
    out = capsys.readouterr().out
    assert out.startswith("step 20/100  loss 1.2500  ")
    assert out.rstrip().endswith("s of training left")


def test_the_time_left_goes_by_all_steps_not_by_the_latest(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("unilseg_jax.training.writer.time.perf_counter", lambda: now[0])
    progress = ProgressLine(10, 100, batch_size=4, seconds=1000.0)
    now[0] += 10
    progress.update(20, 1.0)
    now[0] += 50
    progress.update(40, 1.0)
    assert [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()] == [
        "80 s of training left",
        "120 s of training left",
    ]


def test_speed_is_of_the_images_since_the_last_call_without_pauses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("unilseg_jax.training.writer.time.perf_counter", lambda: now[0])
    progress = ProgressLine(0, 100, batch_size=4)
    now[0] += 2
    assert progress.update(10, 1.0) == pytest.approx(20)
    now[0] += 1
    progress.pause()
    now[0] += 50
    progress.resume()
    now[0] += 1
    assert progress.update(15, 1.0) == pytest.approx(10)


def test_a_run_that_goes_on_knows_its_seconds_up_to_there(tmp_path):
    write(tmp_path, 0, *((step, {"train/loss": 1.0, "train/seconds": 10.0 * step}) for step in (1, 2, 3, 4)))
    assert MetricWriter(tmp_path, 2, 100).seconds_before == 20
    (tmp_path / "new").mkdir()
    assert MetricWriter(tmp_path / "new", 0, 100).seconds_before == 0


def test_seconds_of_training_grow_from_those_before_without_pauses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("unilseg_jax.training.writer.time.perf_counter", lambda: now[0])
    progress = ProgressLine(4, 100, batch_size=4, seconds=30.0)
    now[0] += 2
    progress.update(10, 1.0)
    progress.pause()
    now[0] += 50
    progress.resume()
    now[0] += 1
    progress.update(15, 1.0)
    assert progress.seconds == pytest.approx(33)


def test_a_bar_says_that_it_starts_until_there_are_numbers(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("unilseg_jax.training.writer.Console", lambda **_: terminal)
    with ProgressLine(0, 100, batch_size=4) as progress:
        first = screen.getvalue()
        progress.update(20, 1.25)
    assert "starting" in first
    assert "nan" not in screen.getvalue()
    assert "loss 1.2500" in screen.getvalue()
