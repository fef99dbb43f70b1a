"""The command that writes a released file."""

import dataclasses
import shutil

import numpy as np
import pytest
from random_models import TINY, assert_bitwise_equal, random_released, random_tensors
from safetensors.numpy import load_file, save_file
from small_disk import check_refusal

from unilseg_jax import convert, export
from unilseg_jax.errors import run_command
from unilseg_jax.interop.layout import model_entries, released_entries
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.interop.torch_import import assemble, load_released
from unilseg_jax.training.model_directory import save_pretrained


def fails(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run_command(export.main, [str(argument) for argument in arguments])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def save_trained(directory, **changes):
    sizes = dataclasses.replace(TINY, **changes)
    entries = model_entries(sizes)
    variables = assemble(entries, random_tensors(entries))
    save_pretrained(directory, Pretrained(architecture=sizes, variables=variables, input_size=96))


@pytest.fixture
def converted(tmp_path):
    """A model directory with a small image tower."""
    save_file(random_released(), tmp_path / "in.safetensors")
    convert.main(["--input", str(tmp_path / "in.safetensors"), "--output", str(tmp_path / "model")])
    return tmp_path / "model"


def test_convert_then_export_gives_the_file_back(tmp_path):
    tensors = random_released()
    save_file(tensors, tmp_path / "in.safetensors")
    convert.main(["--input", str(tmp_path / "in.safetensors"), "--output", str(tmp_path / "model")])
    export.main(["--checkpoint", str(tmp_path / "model"), "--output", str(tmp_path / "out.safetensors")])
    assert_bitwise_equal(load_file(tmp_path / "out.safetensors"), tensors)


def test_a_trained_model_is_filled_up_and_said(tmp_path, capsys):
    save_trained(tmp_path / "run", word_len=9)
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "out.safetensors")])
    out = capsys.readouterr().out
    assert "filled with zeros" in out
    assert "note: the authors' code cannot build this model before it is changed" in out
    assert "tensors of a converted model\n" in out
    tensors = load_file(tmp_path / "out.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == {e.name: e.shape for e in released_entries(TINY)}
    again = load_released(tmp_path / "out.safetensors")
    assert (again.architecture.word_len, again.input_size) == (9, 96)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (None, "tensors of step 30\n"),
        ("ema", "tensors of step 30, its moving average\n"),
        ("score", "tensors of step 30, the best evaluation's\n"),
    ],
)
def test_which_weights_were_taken_is_said(tmp_path, capsys, item, said):
    save_trained(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "30"
    checkpoint.with_name("0").rename(checkpoint)
    if item:
        shutil.copytree(checkpoint / "variables", checkpoint / item)
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "out.safetensors")])
    assert said in capsys.readouterr().out


def test_a_best_checkpoint_beside_is_named(tmp_path, capsys):
    save_trained(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "best").mkdir()
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "out.safetensors")])
    line = f"tensors of step 0, the newest; those of the best evaluation are in {tmp_path / 'run' / 'best'}\n"
    assert line in capsys.readouterr().out


@pytest.mark.torch
def test_pth_has_the_names_that_the_released_code_wants(tmp_path):
    torch = pytest.importorskip("torch")
    save_trained(tmp_path / "run")
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "out.pth")])
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(content["state_dict"]) == {f"module.{entry.name}" for entry in released_entries(TINY)}
    assert content["word_len"] == TINY.word_len
    index = "module.backbone_visual.layers.0.blocks.0.attn.relative_position_index"
    assert content["state_dict"][index].dtype == torch.int64
    wanted = random_tensors(model_entries(TINY))["pixel_decoder.layer_2.0.weight"]
    found = content["state_dict"]["module.pixel_decoder.layer_2.0.weight"]
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_bad_arguments_cost_one_line_and_write_nothing(tmp_path, capsys):
    save_trained(tmp_path / "reduced", vision_path=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    out = "--output", tmp_path / "out.safetensors"
    for arguments, said in (
        (("--checkpoint", tmp_path / "reduced", *out), "built without vision_path"),
        (("--checkpoint", tmp_path / "absent", *out), "no such checkpoint directory"),
        (("--checkpoint", tmp_path / "empty", *out), "is not a model directory"),
        (("--checkpoint", tmp_path / "reduced", "--output", tmp_path / "out.bin"), "must end in .pth"),
        (
            ("--checkpoint", tmp_path / "reduced", "--output", tmp_path / "file" / "x.pt"),
            "file' is a file, a folder is",
        ),
        (("--checkpoint", tmp_path / "reduced", *out, "--partial"), "unrecognized arguments: --partial"),
    ):
        assert said in fails(capsys, *arguments)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pth", marks=pytest.mark.torch)])
def test_a_full_disk_costs_one_line_and_leaves_nothing(tmp_path, converted, suffix):
    output = tmp_path / "new" / f"out{suffix}"
    check_refusal(300_000, "export", "--checkpoint", converted, "--output", output)
    assert not list(tmp_path.glob("new*"))


def test_a_name_as_long_as_can_be_is_written(tmp_path, converted):
    output = tmp_path / "new" / ("n" * 243 + ".safetensors")
    export.main(["--checkpoint", str(converted), "--output", str(output)])
    assert [path.name for path in output.parent.iterdir()] == [output.name]
