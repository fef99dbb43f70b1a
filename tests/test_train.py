"""A run from end to end, as a user starts it: what it leaves, and that an interruption changes nothing."""

import dataclasses
import json
import re
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_run import CHECKPOINT_EVERY, CLOCK, SCENES, STEPS, curve, entries, evaluated, evaluations, flags, run, start

from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.segmenter import Segmenter
from unilseg_jax.training.model_directory import load_pretrained, save_pretrained

KILLED_AT = 8
"""A step between two checkpoints, after an evaluation and before another."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What one process compiled, the next need not."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """(workdir, stdout) of a run that nobody interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "new" / "run"
    code, out, err = run(flags(workdir), cache)
    assert code == 0, err
    return workdir, out


@pytest.fixture(scope="module")
def resumed(cache, finished, tmp_path_factory):
    """(workdir, stdout) of the same run, killed without warning and started again."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    process = start(flags(workdir), cache)
    for line in process.stdout:
        if line.startswith(f"step {KILLED_AT}/"):
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert not (workdir / "summary.json").exists()
    code, out, err = run(flags(workdir), cache)
    assert code == 0, err
    return workdir, out


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def read_json(path):
    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_run_leaves_everything_that_is_promised(finished):
    workdir, out = finished
    found = {entry.name for entry in workdir.iterdir()}
    assert found == {
        "config.json",
        "model.json",
        "metrics.jsonl",
        "summary.json",
        "leakage.json",
        "pictures",
        "checkpoints",
        "best",
        "tensorboard",
    }
    kept = {STEPS, STEPS - CHECKPOINT_EVERY}
    assert {entry.name for entry in (workdir / "checkpoints").iterdir()} == {str(step) for step in kept}
    assert list((workdir / "tensorboard").iterdir())
    assert f"\n{STEPS} steps of 2 pictures = " in out
    assert f"step {STEPS}/{STEPS}  loss " in out
    assert "images/s" in out
    assert f"written to {workdir}" in out


def test_the_resolved_config_is_written(finished):
    config = read_json(finished[0] / "config.json")
    assert config["steps"] == STEPS
    assert config["model"]["depths"] == [1, 1, 1, 1]
    assert config["evals"]["held_out"]["source"] == {"name": "scenes", "num_scenes": SCENES, "seed": 1, "size": 64}


def test_every_step_is_written_once(finished):
    lines = curve(finished[0])
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    wanted = {"step", *(f"train/{key}" for key in ("loss", "bce", "dice", "auxiliary", "grad_norm", "learning_rate"))}
    assert all(line.keys() == wanted for line in lines)
    assert np.isfinite([line["train/loss"] for line in lines]).all()
    # The first steps of a warm-up of 50 steps to 1e-3.
    assert [line["train/learning_rate"] for line in lines[:2]] == pytest.approx([2e-5, 4e-5], rel=1e-5)


def test_every_step_says_where_the_time_went(finished):
    lines = entries(finished[0], "train/")
    assert all(line.keys() >= {f"train/{key}" for key in CLOCK} for line in lines)
    assert all(line[f"train/{part}_s"] >= 0 for line in lines for part in ("data", "checkpoint", "compute"))
    assert any(line["train/checkpoint_s"] > 0 for line in lines)
    flops = [line["train/model_tflop_per_s"] * 1e12 / line["train/images_per_s"] for line in lines]
    np.testing.assert_allclose(flops, flops[0], rtol=1e-6)
    assert 1e6 < flops[0] < 1e9


def test_the_best_weights_are_a_model_of_their_own(finished):
    scores = {line["step"]: line["held_out/oiou"] for line in entries(finished[0], "held_out/")}
    (kept,) = (finished[0] / "best" / "checkpoints").iterdir()
    assert scores[int(kept.name)] == max(scores.values())
    assert load_pretrained(finished[0] / "best").architecture == load_pretrained(finished[0]).architecture


def test_evaluations_come_during_the_run_and_after_it(finished):
    workdir, _ = finished
    assert evaluated(workdir, "held_out") == evaluations()
    assert evaluated(workdir, "held_out_shuffled") == [STEPS]
    pictures = sorted((workdir / "pictures").glob("held_out_*"))
    assert [path.name for path in pictures] == [f"held_out_{step:07d}.png" for step in evaluations()]
    with Image.open(pictures[-1]) as sheet:
        sheet.load()
        assert min(sheet.size) > 100


def test_the_summary_has_each_kind_honest_and_shuffled(finished):
    workdir, out = finished
    summary = read_json(workdir / "summary.json")
    scenes = SceneSource(num_scenes=SCENES, seed=1, size=64)
    kinds = [kind for scene in scenes for kind in scene.kinds]
    assert summary["steps"] == STEPS
    assert 0 < summary["training_seconds"] < summary["total_seconds"]
    for results in (summary["evals"]["held_out"]["honest"], summary["evals"]["held_out"]["shuffled"]):
        assert results["all"]["count"] == len(kinds)
        assert {kind: row["count"] for kind, row in results["kinds"].items()} == {
            kind: kinds.count(kind) for kind in set(kinds)
        }
    assert summary["evals"]["held_out"]["honest"] != summary["evals"]["held_out"]["shuffled"]
    assert f"held_out after {STEPS} steps" in out


def test_every_line_of_metrics_is_json(finished):
    for line in (finished[0] / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_the_run_is_a_checkpoint_for_the_segmenter(finished):
    workdir, _ = finished
    image = SceneSource(num_scenes=1, seed=9, size=64)[0].image
    prediction = Segmenter.from_pretrained(workdir).predict(image, ["the red circle", "all wheel"])
    assert prediction.probs.shape == (2, 64, 64)
    assert np.isfinite(prediction.probs).all()


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(resumed):
    _, out = resumed
    first = int(out.split("steps ")[1].split(" to ")[0])
    assert 0 < first < KILLED_AT
    assert first % CHECKPOINT_EVERY == 0
    assert f"step {first}/" not in out
    assert f"step {first + 1}/" in out


@pytest.mark.slow
def test_an_interruption_changes_nothing(finished, resumed):
    assert curve(resumed[0]) == curve(finished[0])
    whole, parts = (load_pretrained(workdir).variables for workdir, _ in (finished, resumed))
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert a.tobytes() == b.tobytes()
    summaries = [read_json(workdir / "summary.json") for workdir, _ in (finished, resumed)]
    assert summaries[0]["evals"] == summaries[1]["evals"]


@pytest.mark.slow
def test_training_seconds_go_on_where_the_killed_run_was(resumed):
    seconds = [line["train/seconds"] for line in entries(resumed[0], "train/")]
    assert len(seconds) == STEPS
    assert seconds == sorted(set(seconds))
    assert read_json(resumed[0] / "summary.json")["training_seconds"] == pytest.approx(seconds[-1], abs=0.1)


@pytest.mark.slow
def test_a_resumed_run_has_each_evaluation_once(resumed):
    assert evaluated(resumed[0], "held_out") == evaluations()
    assert evaluated(resumed[0], "held_out_shuffled") == [STEPS]


@pytest.fixture(scope="module")
def started_again(resumed, cache):
    """(workdir, stdout, the summary's results before) of a run that was started again after its end."""
    workdir, _ = resumed
    before = read_json(workdir / "summary.json")["evals"], curve(workdir)
    code, out, err = run(flags(workdir), cache)
    assert code == 0, err
    return workdir, out, before


@pytest.mark.slow
def test_a_finished_run_is_only_evaluated(started_again):
    workdir, out, (results, lines) = started_again
    assert f"steps {STEPS} to {STEPS}, which are all taken: what is left is judged" in out
    assert "  loss " not in out
    assert read_json(workdir / "summary.json")["evals"] == results
    assert curve(workdir) == lines


@pytest.mark.slow
def test_a_finished_run_has_each_evaluation_once(started_again):
    workdir, *_ = started_again
    assert evaluated(workdir, "held_out") == evaluations()
    assert evaluated(workdir, "held_out_shuffled") == [STEPS]


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_one_line(finished, cache, tmp_path):
    """First weights that are far too large do what a far too high learning rate does, without compiling again."""
    pretrained = load_pretrained(finished[0])
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, 1e30), pretrained.variables)
    save_pretrained(tmp_path / "broken", dataclasses.replace(pretrained, variables=broken))
    workdir = tmp_path / "run"
    code, _, err = run(flags(workdir, log_every=2, init__model=tmp_path / "broken"), cache)
    assert code == 3
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(r"the loss is nan.* at step 1; nothing was saved since", line)
    assert "learning_rate" in line
    found = read_json(workdir / "not_finite.json")
    assert found["step"] == 1
    assert len(found["samples"]) == 2, "a step has two pictures"
    assert found["samples"][0] in line
    assert not (workdir / "summary.json").exists()
    assert not any((workdir / "checkpoints").iterdir())
