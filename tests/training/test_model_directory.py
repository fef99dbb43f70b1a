"""A model's directory: what is written is read again, bit by bit, and whatever is broken costs one line."""

import contextlib
import errno
import json
import logging
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from training_states import (
    TINY,
    UNFINISHED,
    assert_same,
    leave_unfinished,
    model_variables,
    save,
    some_state,
    tree,
)

from unilseg_jax.errors import UserError
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.training import model_directory, silence
from unilseg_jax.training.model_directory import load_pretrained, save_pretrained
from unilseg_jax.training.silence import raised_only


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("run")
    save(folder, some_state(0, 3), some_state(1, 6))
    model_directory.write_model_file(folder, TINY, 32)
    return folder


@pytest.fixture
def copied_run(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.usefixtures("any_tree_is_a_model")
def test_a_run_is_read_as_a_model(run):
    pretrained = load_pretrained(run)
    wanted = some_state(1, 6)
    assert_same(pretrained.variables, {"params": wanted.params, "batch_stats": wanted.batch_stats})
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(pretrained.variables))
    assert (pretrained.architecture, pretrained.input_size, pretrained.carried) == (TINY, 32, {})


def test_save_pretrained_and_back(tmp_path):
    carried = {"backbone.visual.proj": np.arange(6, dtype=np.float32).reshape(2, 3)}
    variables = model_variables()
    wanted = Pretrained(architecture=TINY, variables=variables, input_size=96, carried=carried)
    path = tmp_path / "a" / "model"
    save_pretrained(path, wanted)
    found = load_pretrained(str(path))
    assert_same(found.variables, variables)
    assert (found.architecture, found.input_size) == (TINY, 96)
    assert_same(found.carried, carried)
    assert [entry.name for entry in path.parent.iterdir()] == ["model"]


def test_save_pretrained_fills_an_empty_directory(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    save_pretrained(path, Pretrained(architecture=TINY, variables=model_variables()))
    assert load_pretrained(path).architecture == TINY


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_save_pretrained_overwrites_nothing(tmp_path, kind):
    path = tmp_path / "model"
    notes = path / "notes.txt" if kind == "directory" else path
    notes.parent.mkdir(exist_ok=True)
    notes.write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        save_pretrained(path, Pretrained(architecture=TINY, variables=tree(3)))
    assert notes.read_text() == "mine"
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == [notes]


def test_save_pretrained_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_directory.ocp.CheckpointManager, "save", fail)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device; make room"):
        save_pretrained(tmp_path / "model", Pretrained(architecture=TINY, variables=tree(3)))
    assert not list(tmp_path.iterdir())


def remove_model_file(folder):
    (folder / "model.json").unlink()


def cut_model_file(folder):
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text[: len(text) // 2])


def add_unknown_size(folder):
    description = json.loads((folder / "model.json").read_text())
    description["architecture"]["wheels"] = 4
    (folder / "model.json").write_text(json.dumps(description))


def forget_input_size(folder):
    description = json.loads((folder / "model.json").read_text())
    del description["input_size"]
    (folder / "model.json").write_text(json.dumps(description))


def make_it_a_list(folder):
    (folder / "model.json").write_text("[]")


def say_in_model_file(**sizes):
    def change(folder):
        description = json.loads((folder / "model.json").read_text())
        description["architecture"].update(sizes)
        (folder / "model.json").write_text(json.dumps(description))

    return change


def make_its_architecture_a_word(folder):
    (folder / "model.json").write_text('{"architecture": "x"}')


def make_it_a_folder(folder):
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()


def make_its_input_size_endless(folder):
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | {"input_size": float("inf")}))


def remove_checkpoints(folder):
    shutil.rmtree(folder / model_directory.CHECKPOINTS)


def leave_only_an_unfinished_one(folder):
    leave_unfinished(folder, 6, UNFINISHED[0])
    for step in (3, 6):
        shutil.rmtree(folder / model_directory.CHECKPOINTS / str(step))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "check the path"),
        (remove_model_file, "has no model.json"),
        (cut_model_file, r"model\.json' is damaged"),
        (add_unknown_size, r"model\.json' is damaged: .*wheels"),
        (forget_input_size, r"model\.json' is damaged"),
        (make_it_a_list, r"model\.json' is damaged"),
        (make_its_architecture_a_word, r"model\.json' is damaged: wanted a table"),
        (make_it_a_folder, r"cannot read .*model\.json': Is a directory"),
        (make_its_input_size_endless, r"model\.json' is damaged: input_size = inf, wanted a whole number"),
        (say_in_model_file(embed_dim=8.0), r"model\.json' is damaged: embed_dim = 8\.0, wanted something like 128"),
        (say_in_model_file(depths=[[1]] * 4), r"model\.json' is damaged: depths = \(\[1\], "),
        (say_in_model_file(pre_fusion=1), r"model\.json' is damaged: pre_fusion = 1, wanted something like True"),
        (remove_checkpoints, "no finished checkpoint"),
        (leave_only_an_unfinished_one, "no finished checkpoint"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_model_directory_is_one_line(copied_run, damage, message):
    damage(copied_run)
    with pytest.raises(UserError, match=message) as error:
        load_pretrained(copied_run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [cut_model_file, forget_input_size, say_in_model_file(embed_dim=8.0)])
def test_what_to_do_about_a_damaged_description_is_said(copied_run, damage):
    damage(copied_run)
    with pytest.raises(UserError, match=r"; copy the folder again, or name another checkpoint$"):
        load_pretrained(copied_run)


def test_cut_weights_are_one_line_that_ends_with_what_to_do(tmp_path):
    """In a process of its own: what storage and event loop print comes later, and beside the error."""
    folder = tmp_path / "m"
    save_pretrained(folder, Pretrained(architecture=TINY, variables=model_variables()))
    step = folder / model_directory.CHECKPOINTS / "7"
    shutil.copytree(step.with_name("0"), step)
    for path in (step / "variables").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:100])
    code = (
        "import sys; from unilseg_jax.errors import run_command\n"
        "from unilseg_jax.training.model_directory import load_pretrained\n"
        "run_command(lambda argv: load_pretrained(argv[0]), sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: the weights in {str(folder)!r} are damaged or cut short (")
    advice = f"copy the folder again, or name another checkpoint, or move {str(step)!r} away to take step 0"
    assert done.stderr.endswith(f"; {advice}\n")
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_run_that_reads_a_model_stays_as_silent_as_it_was(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(silence._watch(), "failed", False)
    save_pretrained(tmp_path / "m", Pretrained(architecture=TINY, variables=model_variables()))
    logger = logging.getLogger("asyncio")

    def is_heard():
        caplog.clear()
        logger.error("an echo", exc_info=RuntimeError("of 7.orbax-checkpoint-tmp"))
        return bool(caplog.records)

    assert is_heard()
    with raised_only():
        load_pretrained(tmp_path / "m")
        assert not is_heard()
    assert is_heard()
    filters = list(logger.filters)
    for _ in range(2):
        with contextlib.suppress(KeyError), raised_only():
            raise KeyError
        assert not is_heard()
    assert logger.filters == filters


def test_a_cut_file_of_carried_tensors_is_one_line(tmp_path):
    carried = {"backbone.visual.proj": np.ones((2, 3), np.float32)}
    save_pretrained(tmp_path / "m", Pretrained(architecture=TINY, variables=model_variables(), carried=carried))
    file = tmp_path / "m" / model_directory.CARRIED_FILE
    file.write_bytes(file.read_bytes()[:-4])
    said = r"the tensors of carried\.safetensors in .*m' are damaged or cut short \(.*\); copy the folder again"
    with pytest.raises(UserError, match=said):
        load_pretrained(tmp_path / "m")
    assert load_pretrained(tmp_path / "m", with_carried=False).carried == {}


def test_weights_that_may_not_be_read_are_not_called_damaged(copied_run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "d/0")

    monkeypatch.setattr(model_directory.ocp.Checkpointer, "restore", refuse)
    said = r"the weights in .* cannot be read: Permission denied; allow the access or name another path$"
    with pytest.raises(UserError, match=said):
        load_pretrained(copied_run)


def test_weights_that_are_not_finite_are_refused_with_their_name(tmp_path):
    variables = model_variables()
    variables["params"]["text_encoder"]["text_projection"][0, :2] = [np.nan, np.inf]
    save_pretrained(tmp_path / "m", Pretrained(architecture=TINY, variables=variables))
    said = r"m' are not all finite: 2 of 1,024 values of params/text_encoder/text_projection are not; copy them again"
    with pytest.raises(UserError, match=said):
        load_pretrained(tmp_path / "m")


def test_weights_that_do_not_fit_the_description_are_listed(tmp_path):
    path = tmp_path / "model"
    save_pretrained(path, Pretrained(architecture=TINY, variables=model_variables()))
    say_in_model_file(sentence_width=5, query_width=16, language_path=True)(path)
    with pytest.raises(UserError, match=r"are not those of its model\.json; \d+ variables differ") as error:
        load_pretrained(path)
    message = str(error.value)
    for line in (
        "missing: params/language_path/norm/scale",
        "surplus: params/sentence_proj/kernel",
        "other shape: params/text_encoder/text_projection, found (64, 16), wanted (64, 5)",
        "other shape: params/vision_path/mask_features/kernel, found (3, 3, 64, 8), wanted (3, 3, 64, 16)",
    ):
        assert f"\n  {line}" in message


def test_json_is_written_in_one_move(tmp_path):
    path = tmp_path / "new" / "summary.json"
    model_directory.write_json(path, {"steps": 3})
    model_directory.write_json(path, {"steps": 4})
    assert json.loads(path.read_text()) == {"steps": 4}
    with pytest.raises(TypeError):
        model_directory.write_json(path, {"steps": object()})
    assert json.loads(path.read_text()) == {"steps": 4}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"], "a temporary file was left"
