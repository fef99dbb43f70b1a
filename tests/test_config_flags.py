"""What is wrong with a config file or a flag costs one line in the user's words, not the flag library's."""

from pathlib import Path

import pytest
from refusals import refused

from unilseg_jax import plan, train
from unilseg_jax.config import parse_flags
from unilseg_jax.errors import run_command

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
QUICKSTART, REFCOCO = f"--config={CONFIGS / 'quickstart.py'}", f"--config={CONFIGS / 'finetune_refcoco.py'}"

FILES = {
    "absent": ("absent.py", "error: no such config file: 'absent.py'; check the path"),
    "folder": (".", "error: '.' is a folder, a file is wanted as config file"),
    "nothing before the colon": (":debug", "error: --config FILE is missing"),
    "no Python": ("scene.png", "config file 'scene.png' is no Python file: source code"),
    "no get_config": ("bare.py", "config file 'bare.py' has no get_config(); wanted is one as in"),
    "another file's variants": ("other.py:huge", "config file other.py: no variant 'huge'; there are debug"),
    "no variants": ("fixed.py:debug", "config file fixed.py: TypeError: get_config() takes 0"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_config_is_named(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scene.png").write_bytes(b"\x89PNG\r\n\0\0")
    Path("bare.py").write_text("steps = 3\n")
    Path("other.py").write_text(f"import sys\nsys.path.append({str(CONFIGS)!r})\nfrom stage1 import get_config\n")
    Path("fixed.py").write_text("def get_config():\n    pass\n")
    file, message = FILES[name]
    assert message in refused([f"--config={file}", "--workdir=w"], capsys)


FLAGS = {
    "source misspelt": (
        [REFCOCO, "--config.input.sources.trian.weight=1"],
        "config.input.sources.trian is no key of this run; is config.input.sources.train meant?",
    ),
    "source like no other": (
        [QUICKSTART, "--config.input.sources.refcoco.weight", "1"],
        "config.input.sources.refcoco is no key of this run; config.input.sources has scenes",
    ),
    "key in another table": ([QUICKSTART, "--config.batch_size=4"], "is config.input.batch_size meant?"),
    "key of a number": ([QUICKSTART, "--config.steps.x=3"], "config.steps is 900 and has no keys of its own"),
    "key as a flag": ([QUICKSTART, "--steps=3"], "no flag --steps; is --config.steps meant?"),
    "flag misspelt": ([QUICKSTART, "--workdri=w"], "no flag --workdri; is --workdir meant?"),
    "config misspelt": (["--confg", "x.py"], "no flag --confg; is --config meant?"),
    "flag like no other": (
        [QUICKSTART, "--zzz"],
        "no flag --zzz; there are --config, --workdir and --config.KEY=VALUE",
    ),
    "text for a number": ([QUICKSTART, "--config.steps=many"], "--config.steps=many: invalid literal"),
    "number for a table": ([QUICKSTART, "--config.loss=3"], "config.loss is a table, with the keys auxiliary_weight, "),
    "no value": ([QUICKSTART, "--config.steps"], "Missing value for flag --config.steps"),
    "element": ([QUICKSTART, "--config.optim.decay_at[0]=abc"], "give the whole value, --config.optim.decay_at=…"),
    "element of a table": ([QUICKSTART, "--config.mesh[0]=1"], "config.mesh is a table, with the keys fsdp; "),
    "element of nothing": ([QUICKSTART, "--config.nothing[0]=1"], "config.nothing is no key of this run; "),
    "set for a size": ([f"{REFCOCO}:refcocog"], "no variant 'refcocog'; there are debug, tiny"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_cannot_be_used_is_named(name, tmp_path, capsys):
    arguments, message = FLAGS[name]
    assert message in refused([*arguments, f"--workdir={tmp_path / 'run'}"], capsys)


def test_a_refused_variant_is_told_what_the_file_takes(capsys):
    line = refused([f"{REFCOCO}:refcocog", "--workdir=w"], capsys)
    assert "this file says: choice: `SIZE` or `SIZE,SET`." in line
    assert "`cpu`" in line


def test_flags_stand_in_any_order_and_the_last_one_counts():
    arguments = ["--config.steps=3", "--workdir", "a", QUICKSTART, "--config.steps", "5", "--workdir=b"]
    config, workdir = parse_flags(arguments)
    assert (config.steps, workdir) == (5, "b")
    assert config.is_locked


@pytest.mark.parametrize(
    ("flag", "meant"), [("--estimat", "--estimate"), ("--chip=8xH200", "--chips"), ("--steps=3", "--config.steps")]
)
def test_plan_says_which_flag_may_be_meant(flag, meant, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(plan.main, [QUICKSTART, flag])
    assert stop.value.code == 2
    assert f"is {meant} meant?\n" in capsys.readouterr().err


def test_help_of_train_names_its_flags_and_exit_codes(capsys):
    train.main(["--help"])
    text = capsys.readouterr().out
    for part in ("--config FILE[:VARIANT]", "--workdir DIR", "--config.KEY=VALUE", "Exit codes: 0", "74", "75"):
        assert part in text
