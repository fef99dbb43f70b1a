"""Keys that nothing would read and values that would fail late: each costs one line that names it."""

from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from unilseg_jax import train
from unilseg_jax.config import parse_flags
from unilseg_jax.config_check import BEST_BY
from unilseg_jax.evaluation.evaluator import summarise
from unilseg_jax.metrics.referring import ReferringMetric

QUICKSTART = str(Path(__file__).resolve().parents[1] / "configs" / "quickstart.py")


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    """Fails the test if a run would begin."""

    def begin(config, workdir):
        raise AssertionError("the config was accepted")

    monkeypatch.setattr(train, "train", begin)


VALUES = {
    "negative factor": (["--config.optim.lr_scales=(('.*',-1.0),)"], "the factor -1.0 of '.*' must be a finite number"),
    "factor in words": (["--config.optim.lr_scales=(('.*','half'),)"], "the factor 'half' of '.*' must be"),
    "no regular expression": (["--config.optim.lr_scales=(('(',0.1),('.*',1.0))"], "'(' is no regular expression"),
    "rule without a factor": (["--config.optim.lr_scales=(('.*',),)"], "('.*',) is no rule; wanted are pairs"),
    "rules that are a number": (["--config.optim.lr_scales=5"], "5 is no rule; wanted are pairs"),
    "a rule for the rules": (["--config.optim.lr_scales=('.*',1.0)"], "'.*' is no rule; wanted are pairs"),
    "a level of a block and a half": (
        ["--config.model.depths=(1,1,1,1.5)"],
        "config.model.depths = (1, 1, 1, 1.5) must be a whole number at each place",
    ),
    "seed below 0": (["--config.seed=-1"], "config.seed = -1 must be at least 0"),
    "seed too wide": (["--config.seed=99999999999999999999"], "must be at least 0 and less than 2**32"),
    "fewer words than CLIP's": (["--config.model.vocab_size=100"], "model.vocab_size = 100 must be at least 49408"),
    "rate that is no number": (["--config.optim.learning_rate=nan"], "learning_rate = nan must be a finite number"),
    "clipping that is no number": (["--config.optim.clip_norm=nan"], "clip_norm = nan must be a finite number"),
    "negative weight of a loss": (["--config.loss.dice_weight=-1.0"], "loss.dice_weight = -1.0 must be at least 0"),
    "weight of a loss that is no number": (["--config.loss.bce_weight=nan"], "bce_weight = nan must be a finite"),
    "negative decay": (["--config.optim.decay_factor=-0.1"], "optim.decay_factor = -0.1 must be at least 0"),
    "decay that is no number": (["--config.optim.decay_factor=nan"], "decay_factor = nan must be a finite number"),
    "eps of nothing": (["--config.optim.eps=0.0"], "config.optim.eps = 0.0 must be greater than 0"),
    "a beta of 1": (["--config.optim.betas=(0.9,1.0)"], "betas = (0.9, 1.0) must be two numbers, at least 0 and less"),
    "one beta": (["--config.optim.betas=(0.9,)"], "betas = (0.9,) must be two numbers, at least 0 and less than 1"),
    "beta in words": (["--config.optim.betas=(0.9,'high')"], "betas = (0.9, 'high') must be a finite number at each"),
    "decay at a word": (["--config.optim.decay_at=('half',)"], "decay_at = ('half',) must be a finite number at each"),
    "decay after the end": (["--config.optim.decay_at=(0.5,900.0)"], "(0.5, 900.0) must be shares of the run, 0 to 1"),
    "decay at no number": (["--config.optim.decay_at=(float('nan'),)"], "decay_at"),
    "flips that are no number": (["--config.input.flip=nan"], "config.input.flip = nan must be a finite number"),
    "negatives that are no number": (["--config.input.negatives=nan"], "input.negatives = nan must be a finite"),
    "hiding that is no number": (
        ["--config.input.hide_and_seek.probability=inf"],
        "probability = inf must be a finite",
    ),
    "source's weight that is no number": (["--config.input.sources.scenes.weight=nan"], "scenes.weight = nan must be"),
    "best by no metric": (
        ["--config.best_metric=held_out/nonsense"],
        "wanted held_out/ and one of oiou, miou",
    ),
    "best by a count": (["--config.best_metric=held_out/count"], "is nothing that an evaluation gets better in"),
    "best of no evaluation": (
        ["--config.best_metric=val/oiou"],
        "is of no evaluation; there are such as",
    ),
    "a trace beyond the end": (["--config.steps=9", "--config.profile_steps=(5,10)"], "of the run's 9, or ()"),
    "a trace between words": (["--config.profile_steps=('a','b')"], "must be a first and a last step"),
    "a trace from True": (["--config.profile_steps=(True,2)"], "must be a first and a last step"),
    "a trace of one number": (["--config.profile_steps=(5,)"], "must be a first and a last step"),
    "threshold that is no number": (["--config.evals.held_out.threshold=nan"], "held_out.threshold = nan must be"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_used_costs_one_line_that_names_it(name, tmp_path, capsys):
    more, message = VALUES[name]
    workdir = tmp_path / "run"
    line = refused([f"--config={QUICKSTART}", f"--workdir={workdir}", *more], capsys)
    assert message in line
    assert not workdir.exists()


FILE_START = """from unilseg_jax.config import base_config, evaluation, scenes_source
def get_config():
    c = base_config()
    c.input.sources.scenes = scenes_source(num_scenes=5, seed=0, size=64)
    c.evals.val = evaluation(scenes_source(num_scenes=5, seed=1, size=64))
"""
"""Five lines of a file that is right when `return c` follows."""
IN_FILES = {
    "no python": ("get_config(:", "invalid syntax"),
    "rate misspelt": ("c.optim.lerning_rate = 5.0", "config.optim.lerning_rate is no key of a run; is config.optim.l"),
    "steps misspelt": ("c.stepz = 3", "config.stepz is no key of a run; is config.steps meant?"),
    "size of the model misspelt": (
        "c.model.dropuot = 0.1",
        "config.model.dropuot is no key of a run; is config.model.d",
    ),
    "key in the wrong table": ("c.learning_rate = 1.0", "config.learning_rate is no key of a run; is config.optim.lea"),
    "key like no other": ("c.loss.xyz = 1.0", "config.loss.xyz is no key of a run; config.loss has auxiliary_weight,"),
    "table misspelt": ("c.firewal = {'mode': 'paper'}", "config.firewal is no key of a run; is config.firewall meant?"),
    "source's key misspelt": (
        "c.input.sources.scenes.wieght = 2.0",
        "sources.scenes.wieght is no key of a run; is con",
    ),
    "evaluation's key misspelt": ("c.evals.val.max_image = 3", "evals.val.max_image is no key of a run; is config.ev"),
    "key of an evaluation's source": (
        "c.evals.val.source.sead = 3",
        "evals.val.source.sead is no key of a run; is con",
    ),
    "benchmark's key": ("c.firewall.benchmarks.b = {'name': 'lip', 'dir': 'x'}", "firewall.benchmarks.b.dir is no key"),
    "evaluation without all keys": ("del c.evals.val.every", "config.evals.val.every is missing; start from base_conf"),
    "no model": ("del c.model", "config.model is missing; start from base_config()"),
    "source that is no table": ("c.input.sources.x = 5", "config.input.sources.x = 5 must be a table of keys"),
    "evaluation that is no table": ("c.evals.x = 5", "config.evals.x = 5 must be a table of keys"),
    "nothing": ("c.steps = None", "config.steps = None must be a whole number"),
    "a fraction": ("c.steps = 2.5", "line 6: TypeError: Could not override field 'steps'"),
    "decay without a tuple": ("c.optim.decay_at = 0.5", "line 6: TypeError: Could not override field 'decay_at'"),
    "unknown name": ("undefined", "line 6: NameError: name 'undefined' is not defined"),
    "division": ("1 / 0", "line 6: ZeroDivisionError: division by zero"),
    "any error": ("raise RuntimeError('two\\nlines')", "line 6: RuntimeError: two lines"),
    "missing import": ("import absent_module", "line 6: ModuleNotFoundError: No module named 'absent_module'"),
    "another config": ("return {'steps': 3}", "get_config() returned {'steps': 3}; wanted is base_config() with"),
    "another ConfigDict": ("import ml_collections as m; return m.ConfigDict()", "config.batch_norm is missing"),
}


@pytest.mark.parametrize("name", IN_FILES)
def test_a_mistake_in_a_config_file_costs_one_line_that_names_it(name, tmp_path, capsys):
    line, message = IN_FILES[name]
    path = tmp_path / "mistaken.py"
    path.write_text(f"{FILE_START}    {line}\n    return c\n")
    found = refused([f"--config={path}", f"--workdir={tmp_path / 'run'}"], capsys)
    assert message in found
    assert not (tmp_path / "run").exists()


def test_what_an_evaluation_says_can_be_best_by():
    metric = ReferringMetric()
    metric.update(np.ones((2, 2), bool), np.ones((2, 2), bool))
    numbers = summarise({"object": (metric, [False])})["all"]
    assert set(BEST_BY) == numbers.keys() - {"count", "nothing_found"}
    for number in BEST_BY:
        found, _ = parse_flags([f"--config={QUICKSTART}", "--workdir=w", f"--config.best_metric=held_out/{number}"])
        assert found.best_metric == f"held_out/{number}"


def test_the_last_step_can_be_traced():
    arguments = [f"--config={QUICKSTART}", "--workdir=w", "--config.steps=9", "--config.profile_steps=(9,9)"]
    assert tuple(parse_flags(arguments)[0].profile_steps) == (9, 9)


def test_a_config_file_that_is_right_is_read(tmp_path):
    path = tmp_path / "right.py"
    path.write_text(f"{FILE_START}    return c\n")
    assert parse_flags([f"--config={path}", "--workdir=w"])[0].evals.val.source.seed == 1
