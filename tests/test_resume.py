"""What a run that goes on takes from the one before: its training time and its first weights."""

import errno
import json
import os
import time

import jax
import numpy as np
import pytest
import tiny_run
from no_learning import no_learning_in

from unilseg_jax import train
from unilseg_jax.config import parse_flags
from unilseg_jax.errors import ExternalError, UserError
from unilseg_jax.training import compilation, start
from unilseg_jax.training.checkpoint import Checkpointer


@pytest.fixture(autouse=True)
def no_learning(monkeypatch):
    """See `no_learning_in`."""
    no_learning_in(monkeypatch)


class Killed(Exception):
    """Ends a run without a word."""


def config_of(**changes):
    more = {"steps": 6, "checkpoint_every": 3, "log_every": 2, "input__batch_size": 8, "evals__held_out__every": 0}
    batches = {f"evals__{name}__batch_size": 8 for name in ("held_out", "glance")}
    return parse_flags(tiny_run.flags("unused", **more, **batches, **changes))[0]


def go_on_at(step, monkeypatch, workdir):
    """Makes the next run find a checkpoint, of zeros."""

    def restore_latest(self, state, warn):
        zeros = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), state)
        return zeros.replace(step=zeros.step + step)

    monkeypatch.setattr(Checkpointer, "restore_latest", restore_latest)
    (workdir / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)


def lines(workdir):
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "train/loss" in line]


@pytest.mark.slow
def test_training_seconds_are_those_of_all_processes_of_a_run(tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unilseg_jax.training.evaluations.Evaluations.run", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # dies before its summary
            train.train(config_of(), str(tmp_path))
    assert [line["step"] for line in lines(tmp_path)] == [2, 3, 4, 6], "every checkpoint has a line"
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        "".join(json.dumps(line | {"train/seconds": 100.0 * line["step"]}) + "\n" for line in lines(tmp_path))
    )
    go_on_at(3, monkeypatch, tmp_path)
    summary = train.train(config_of(), str(tmp_path))
    seconds = {line["step"]: line["train/seconds"] for line in lines(tmp_path)}
    assert list(seconds) == [2, 3, 4, 6]
    assert seconds[3] == 300
    assert 300 < seconds[4] < seconds[6] < 400
    assert summary["training_seconds"] == pytest.approx(seconds[6], abs=0.1)
    go_on_at(6, monkeypatch, tmp_path)
    assert train.train(config_of(), str(tmp_path))["training_seconds"] == summary["training_seconds"]


def test_a_run_that_goes_on_reads_no_first_weights_and_says_so(tmp_path, monkeypatch, capsys):
    train.train(config_of(), str(tmp_path))
    go_on_at(3, monkeypatch, tmp_path)
    capsys.readouterr()
    train.train(config_of(init__swin="moved.pth"), str(tmp_path))
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "config.init.swin = 'moved.pth' is not read: this run goes on from its own checkpoint" in note
    assert json.loads((tmp_path / "config.json").read_text())["init"]["swin"] == "", "what it was started with"


def test_the_clock_starts_once_the_step_is_compiled(tmp_path, monkeypatch):
    clock, compile_step, compiling = time.perf_counter, compilation.compile_step, []

    def slow(*args):
        compiling.append(1000.0)
        return compile_step(*args)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + sum(compiling))
    monkeypatch.setattr(compilation, "compile_step", slow)
    assert train.train(config_of(), str(tmp_path))["total_seconds"] > 1000
    first, *_, last = lines(tmp_path)
    assert last["train/seconds"] < 500
    assert first["train/images_per_s"] > 16 / 500
    spent = sum(first[f"train/{part}_s"] for part in ("data", "checkpoint", "compute"))
    assert 2 * spent == pytest.approx(first["train/seconds"], abs=0.5), "of the two steps before the first line"


def test_a_run_that_began_while_this_one_started_is_not_written_over(tmp_path, monkeypatch):
    first_weights = start.first_weights

    def meanwhile(*arguments, **options):
        (tmp_path / "checkpoints" / "3").mkdir(parents=True)
        return first_weights(*arguments, **options)

    monkeypatch.setattr(start, "first_weights", meanwhile)
    with pytest.raises(ExternalError, match=r"another run has begun in .* meanwhile; start the same command again"):
        train.train(config_of(), str(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, ExternalError), (errno.EROFS, UserError)])
def test_a_full_disk_at_the_start_is_nothing_that_the_user_got_wrong(tmp_path, monkeypatch, number, kind):
    def write(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("unilseg_jax.input_pipeline.leakage_files.write", write)
    with pytest.raises(kind, match=f"cannot write to --workdir .*: {os.strerror(number)}; "):
        train.train(config_of(), str(tmp_path))
