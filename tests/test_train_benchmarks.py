"""Benchmarks of a training run: judged as `evaluate` judges them, written down, kept the best by."""

import json

import pytest
from tiny_run import entries, flags, run

from unilseg_jax import evaluate, prepare
from unilseg_jax.training import model_directory

pytestmark = pytest.mark.slow
EVERY, STEPS = 4, 8
CONFIG = """
from configs import quickstart
from unilseg_jax.config import benchmark

def get_config():
    config = quickstart.get_config()
    for name in ("ecssd:test", "refcocog:val"):
        key = name.partition(":")[0]
        config.benchmarks[key] = benchmark(name, data_dir={data!r}, every={every}, max_images=2)
    return config
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of two prepared stand-ins."""
    root = tmp_path_factory.mktemp("sets")
    for name, config in (("salient", "ecssd"), ("refcoco", "refcocog")):
        given = ["--synthetic=3", f"--raw={root / 'raw' / name}", f"--out={root / 'out'}", f"--config={config}"]
        prepare.main([name, *given])
    return root / "out"


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """(directory, stdout) of a run."""
    root = tmp_path_factory.mktemp("judged")
    (root / "judged.py").write_text(CONFIG.format(data=str(data), every=EVERY))
    given = flags(
        root / "run", config=root / "judged.py", steps=STEPS, best_metric="ecssd/f_mean", evals__held_out__every=0
    )
    code, out, err = run(given, root / "compiled")
    assert code == 0, err
    return root / "run", out


def test_numbers_are_written_and_printed_when_they_are_due(finished):
    workdir, out = finished
    for name, number in (("ecssd", "f_mean"), ("refcocog", "oiou")):
        lines = entries(workdir, f"{name}/")
        assert [line["step"] for line in lines] == [EVERY, STEPS]
        assert all(0 <= line[f"{name}/{number}"] <= 1 for line in lines)
        (said,) = (line for line in out.splitlines() if line.startswith(f"step {EVERY}: {name} "))
        assert f"{number} {lines[0][f'{name}/{number}']:.4f}" in said


def test_the_folder_of_an_evaluation_holds_what_evaluate_writes(finished):
    workdir, _ = finished
    summary = json.loads((workdir / "summary.json").read_text())["benchmarks"]
    folder = workdir / summary["ecssd"]["results"]
    assert {path.name for path in folder.iterdir()} == {"results.json", "report.html", "samples.csv", "curves.png"}
    passport = json.loads((folder / "results.json").read_text())["numbers"][0]["passport"]
    assert (passport["protocol"], passport["images"], passport["complete"]) == ("paper", 2, False)
    assert passport["leakage"]["status"] == "clean"
    assert summary["refcocog"]["leakage_dropped"] == 0


def test_the_command_finds_the_same_numbers(finished, data, tmp_path):
    workdir, _ = finished
    options = [f"--data={data}", f"--output={tmp_path}", "--max-images=2", "--protocol=paper"]
    evaluate.main(["--checkpoint", str(workdir), "--benchmark=ecssd", "--benchmark=refcocog:val", *options])
    summary = json.loads((workdir / "summary.json").read_text())["benchmarks"]
    for name, folder in (("ecssd", "ecssd-test"), ("refcocog", "refcocog-val")):
        found = json.loads((tmp_path / folder / "results.json").read_text())["numbers"][0]["metrics"]
        # Compiled without optimisation in the run, with it here.
        assert summary[name] == pytest.approx(
            summary[name] | {key: found[key] for key in found if key != "count"}, abs=2e-3
        )


def test_the_best_weights_are_those_of_the_benchmark(finished):
    workdir, _ = finished
    scores = {line["step"]: line["ecssd/f_mean"] for line in entries(workdir, "ecssd/")}
    steps = {int(path.name) for path in (workdir / "best" / "checkpoints").iterdir() if path.name.isdigit()}
    assert steps == {max(scores, key=lambda step: (scores[step], -step))}
    assert model_directory.load_pretrained(workdir / "best").input_size == 32
