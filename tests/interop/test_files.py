"""Files are told apart by their content; bad ones cost one line."""

import argparse
import importlib
import pickle
import re
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from unilseg_jax.errors import UserError
from unilseg_jax.interop.files import find_weights, read_tensors

NEEDS_TORCH = pytest.mark.torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.pth", b"", "is empty"),
        ("model.pth", b"<html>not found</html>", "not a checkpoint"),
        ("model.pth", b"x", "not a checkpoint"),
        ("model.safetensors", b"\x10\0\0", "cut short"),
        ("model.pth", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("model.pth", b"PK\x03\x04 and nothing that a zip archive ends with", "cut short"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    assert says in refusal(path)


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "absent.pth")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_cut_safetensors_file_is_refused(tmp_path, share):
    path = tmp_path / "model.safetensors"
    save_file({f"a.{n}": np.ones((5, 5), np.float32) for n in range(20)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "cut short" in refusal(path)


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "pictures.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.png", b"")
    assert "PyTorch did not write it" in refusal(path)


def test_without_pytorch_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
    message = refusal(path)
    assert "pip install 'unilseg_jax[torch]'" in message
    assert ".safetensors" in message


def test_safetensors_are_read_with_their_settings(tmp_path):
    path = tmp_path / "weights"  # the suffix does not matter
    half = np.arange(4, dtype=ml_dtypes.bfloat16)
    save_file(
        {
            "module.a": np.float32([1, 2]),
            "module.b": np.float16([0.1]),
            "module.c": half,
            "module.n": np.array(3),
        },
        path,
        {"format": "pt", "word_len": "9", "input_size": "many"},
    )
    file = read_tensors(path)
    assert {name: value.dtype.name for name, value in file.tensors.items()} == {
        "a": "float32",
        "b": "float32",
        "c": "float32",
        "n": "int64",
    }
    np.testing.assert_array_equal(file.tensors["b"], np.float16([0.1]).astype(np.float32))
    np.testing.assert_array_equal(file.tensors["c"], [0, 1, 2, 3])
    assert file.settings == {"word_len": 9}
    assert len(file.notes) == 2
    assert any("1 tensors of bfloat16" in note for note in file.notes)


def test_the_prefix_is_taken_off_only_if_all_names_have_it(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"module.a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}, path)
    assert set(read_tensors(path).tensors) == {"module.a", "b"}


def test_a_folder_holds_weights_under_known_names(tmp_path):
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        find_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert find_weights(tmp_path).name == "pytorch_model.bin"


@NEEDS_TORCH
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_pytorch_files_are_read(tmp_path, torch, key, zipped):
    path = tmp_path / "model.pt"
    tensors = {
        "module.a": torch.arange(6.0).reshape(2, 3).T,
        "module.h": torch.ones(2, dtype=torch.bfloat16),
        "module.n": torch.tensor(5),
    }
    content = {key: tensors, "epoch": 3} if key else tensors
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    file = read_tensors(path)
    np.testing.assert_array_equal(file.tensors["a"], np.float32([[0, 3], [1, 4], [2, 5]]))
    np.testing.assert_array_equal(file.tensors["h"], np.float32([1, 1]))
    assert file.tensors["n"].dtype == np.int64
    assert file.tensors["n"].shape == ()


@NEEDS_TORCH
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_cut_pytorch_file_is_refused(tmp_path, torch, share, zipped):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": {"a": torch.ones(1000)}}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "cut short" in refusal(path)


class Runs:
    def __reduce__(self):
        return (print, ("code was run",))


@NEEDS_TORCH
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("thing", [Runs(), argparse.Namespace(lr=1)], ids=["function", "class"])
def test_a_file_that_needs_code_is_refused_and_the_code_not_run(tmp_path, torch, capsys, thing, zipped):
    path = tmp_path / "model.pth"
    content = {"state_dict": {"a": torch.ones(1)}, "args": thing}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "running code" in refusal(path)
    assert "code was run" not in capsys.readouterr().out


@NEEDS_TORCH
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("thing", "name"), [(Runs(), "print"), (argparse.Namespace(lr=1), "argparse.Namespace")], ids=["function", "class"]
)
def test_a_plain_pickle_is_refused_by_the_code_it_names_which_is_not_run(
    tmp_path, torch, capsys, protocol, thing, name
):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"state_dict": {"print": 1, "a": thing}, "more": [thing, thing]}, protocol))
    message = refusal(path)
    assert re.search(rf"running code \(\w*\.?{re.escape(name)}\)", message)
    assert "copy it again" not in message
    assert "code was run" not in capsys.readouterr().out


@NEEDS_TORCH
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("extra", "says"), [({}, "pickle of protocol 4"), ({"x": Runs()}, "running code (builtins.")])
def test_a_file_of_a_newer_protocol_is_not_called_damaged(tmp_path, torch, capsys, zipped, extra, says):
    path = tmp_path / "model.pth"
    content = {"state_dict": {"a": torch.ones(1)}, **extra}
    torch.save(content, path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    assert says in refusal(path)
    assert "code was run" not in capsys.readouterr().out


@NEEDS_TORCH
def test_a_pickle_of_nothing_but_numbers_is_no_checkpoint(tmp_path, torch):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"state_dict": {"a": 5}}, 2))
    assert "is not a checkpoint" in refusal(path)


@NEEDS_TORCH
def test_what_is_not_a_dictionary_of_tensors_is_refused(tmp_path, torch):
    path = tmp_path / "model.pth"
    torch.save([torch.ones(1)], path)
    assert "holds a list" in refusal(path)
    torch.save({"epoch": 1, "name": "x"}, path)
    assert "it holds epoch (int), name (str)" in refusal(path)
    torch.save({"state_dict": {}}, path)
    assert "holds no tensors" in refusal(path)


@NEEDS_TORCH
@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "conjugate", "meta"])
def test_tensors_that_numpy_cannot_take_are_named(tmp_path, torch, kind):
    path = tmp_path / "model.pth"
    if kind == "conjugate":
        odd, said = torch.ones(2, dtype=torch.complex64).conj(), "odd.weight (complex64, cpu)"
    elif kind == "meta":
        odd, said = torch.ones(2, device="meta"), "odd.weight (float32, meta)"
    else:
        odd, said = torch.zeros(2, dtype=getattr(torch, kind)), f"odd.weight ({kind}, cpu)"
    torch.save({"state_dict": {"a": torch.ones(2), "odd.weight": odd}}, path)
    assert f"cannot take: {said}; save them as float32" in refusal(path)


@NEEDS_TORCH
def test_tensors_of_safetensors_that_numpy_cannot_take_are_named(tmp_path, torch):
    path = tmp_path / "model.safetensors"
    odd = {f"odd.{n}": torch.zeros(2, dtype=torch.float8_e4m3fn) for n in range(7)}
    importlib.import_module("safetensors.torch").save_file({"a": torch.ones(2), **odd}, path)
    message = refusal(path)
    assert "odd.0 (F8_E4M3), odd.1 (F8_E4M3)" in message
    assert "and 2 more; save them as float32" in message
