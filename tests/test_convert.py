"""The command that reads a released file."""

import subprocess
import sys

import numpy as np
import pytest
from random_models import TINY, random_released
from safetensors.numpy import save_file
from small_disk import check_refusal

from unilseg_jax.convert import main
from unilseg_jax.errors import run_command
from unilseg_jax.interop.torch_import import load_released
from unilseg_jax.training.model_directory import load_pretrained


def fails(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        run_command(main, [str(argument) for argument in arguments])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


def assert_same(found, wanted):
    assert (type(found), found.keys()) == (type(wanted), wanted.keys())
    for name, value in wanted.items():
        if isinstance(value, dict):
            assert_same(found[name], value)
        else:
            np.testing.assert_array_equal(found[name], value, strict=True)


def test_a_released_file_becomes_a_model_directory(tmp_path, capsys):
    path = tmp_path / "in.safetensors"
    save_file(random_released(), path)
    main(["--input", str(path), "--output", str(tmp_path / "out"), "--word-len", "9", "--input-size", "64"])
    assert f"wrote {tmp_path / 'out'}" in capsys.readouterr().out
    found, wanted = load_pretrained(tmp_path / "out"), load_released(path, word_len=9)
    assert (found.architecture, found.input_size) == (wanted.architecture, 64)
    assert_same(found.variables, wanted.variables)
    assert_same(found.carried, wanted.carried)


def test_differences_are_listed_and_nothing_is_written(tmp_path, capsys):
    tensors = random_released() | {"extra": np.ones(3, np.float32)}
    del tensors["backbone.ln_final.bias"]
    tensors["fusion_proj.bias"] = np.ones(3, np.float32)
    save_file(tensors, tmp_path / "in.safetensors")
    message = fails(capsys, "--input", tmp_path / "in.safetensors", "--output", tmp_path / "out")
    for said in ("missing: backbone.ln_final.bias", "surplus: extra", "fusion_proj.bias, found float32 (3,)"):
        assert said in message
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_weights_that_are_not_finite_are_not_converted(tmp_path, capsys):
    tensors = random_released()
    tensors["fusion_proj.bias"][5] = np.nan
    save_file(tensors, tmp_path / "in.safetensors")
    message = fails(capsys, "--input", tmp_path / "in.safetensors", "--output", tmp_path / "out")
    assert "1 of 64 values of fusion_proj.bias are not" in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_bad_arguments_cost_one_line(tmp_path, capsys):
    (tmp_path / "in.safetensors").write_bytes(b"")
    good = "--input", tmp_path / "in.safetensors"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, said in (
        ((), "required: --input, --output"),
        ((*good, "--output", "x", "--outpt", "y"), "unrecognized arguments: --outpt"),
        ((*good, "--output", tmp_path / "full"), "exists and is not empty"),
        (("--input", tmp_path / "absent", "--output", "x"), "no such checkpoint"),
        (("--input", tmp_path, "--output", "x"), "is a folder"),
        ((*good, "--output", tmp_path / "in.safetensors" / "x"), "in.safetensors' is a file, a folder is wanted there"),
        ((*good, "--output", tmp_path / "x"), "is empty"),
        ((*good, "--output", "x", "--input-size", "28"), "--input-size is 28 px; 29 to 4096 px are wanted"),
        ((*good, "--output", "x", "--input-size", "4097"), "--input-size is 4097 px; 29 to 4096 px are wanted"),
        ((*good, "--output", "x", "--word-len", "0"), "'0' is not a whole number of at least 1"),
    ):
        message = fails(capsys, *arguments)
        assert said in message
        assert message.count("\n") == 1


def test_the_command_needs_no_accelerator_library_to_refuse_a_flag():
    code = (
        "import sys; from unilseg_jax.convert import main\n"
        "try: main(['--no-such'])\n"
        "except SystemExit: print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_phrases_cannot_be_longer_than_the_position_table(tmp_path, capsys):
    save_file(random_released(), tmp_path / "in.safetensors")
    arguments = "--input", tmp_path / "in.safetensors", "--output", tmp_path / "out"
    assert f"3 to {TINY.context_length}" in fails(capsys, *arguments, "--word-len", "21")


def printed(tmp_path, capsys, tensors) -> str:
    save_file(tensors, tmp_path / "in.safetensors")
    main(["--input", str(tmp_path / "in.safetensors"), "--output", str(tmp_path / "out")])
    return capsys.readouterr().out


def test_all_that_was_read_off_the_file_is_printed(tmp_path, capsys):
    out = printed(tmp_path, capsys, random_released())
    for said in (
        "Swin: 8 channels, 2-1-1-1 blocks, 1-2-2-4 heads, windows of 4 cells",
        "text: 1 layers of width 64, sentences of width 24, 60 tokens, 20 positions",
        "language path: 2 layers of width 16, 32 hidden units",
        "input: 480 px, phrases of 17 tokens",
    ):
        assert said in out.splitlines()


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("query_decoder.query_transformer.decoder.layers.1.", "note: query_layers is 1, in the released model 6"),
        ("backbone_visual.layers.0.blocks.1.", "note: no published Swin has 8 channels, 1-1-1-1 blocks and 1-2-2-4"),
        ("backbone.transformer.resblocks.1.", "note: text_layers is 1, in the released model 12"),
    ],
)
def test_a_file_without_its_last_layer_shows(tmp_path, capsys, last, said):
    tensors = random_released(text_layers=2)
    assert any(name.startswith(last) for name in tensors)
    kept = {name: value for name, value in tensors.items() if not name.startswith(last)}
    assert said in printed(tmp_path, capsys, kept)


@pytest.mark.parametrize("module", [("fusion", "all_fusion"), "pixel_decoder.cross_attn_", "query_decoder."], ids=str)
def test_a_file_without_a_module_is_not_converted(tmp_path, capsys, module):
    tensors = {name: value for name, value in random_released().items() if not name.startswith(module)}
    save_file(tensors, tmp_path / "in.safetensors")
    message = fails(capsys, "--input", tmp_path / "in.safetensors", "--output", tmp_path / "out")
    assert "is not a complete model in the released layout" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [10, 300_000])
def test_a_full_disk_costs_one_line_and_leaves_nothing(tmp_path, limit):
    save_file(random_released(), tmp_path / "in.safetensors")
    output = tmp_path / "new" / "out"
    check_refusal(limit, "convert", "--input", tmp_path / "in.safetensors", "--output", output)
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_the_folder_one_stands_in_may_be_the_output(tmp_path, monkeypatch):
    save_file(random_released(), tmp_path / "in.safetensors")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    main(["--input", "../in.safetensors", "--output", "."])
    assert load_pretrained(tmp_path / "out").architecture == TINY


def test_a_file_that_says_an_impossible_input_size_is_refused_unless_told_another(tmp_path, capsys):
    save_file(random_released(), tmp_path / "in.safetensors", {"input_size": "5"})
    arguments = "--input", tmp_path / "in.safetensors", "--output", tmp_path / "out"
    assert "in.safetensors' says is 5 px; 29 to 4096 px are wanted" in fails(capsys, *arguments)
    assert not (tmp_path / "out").exists()
    main([*map(str, arguments), "--input-size", "29"])
    assert load_pretrained(tmp_path / "out").input_size == 29
