"""The argument parser of the commands, their list, and that the benchmarks have a parser that works."""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

import pytest

from unilseg_jax.__main__ import commands
from unilseg_jax.command_line import OneLineParser, positive_int
from unilseg_jax.version import __version__

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def parser():
    parser = OneLineParser(prog="segment")
    parser.add_argument("--threshold", type=float, required=True)
    parser.add_argument("--count", type=positive_int, default=1)
    return parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--threshold"),
        (["--threshold", "much"], "much"),
        (["--threshold", "0.5", "--sharpen"], "--sharpen"),
        (["--thresh", "0.5"], "--thresh"),
        (["--treshold=0.5"], "unrecognized arguments: --treshold; is --threshold meant?"),
        (["--threshold", "0.5", "--count", "0"], "'0' is not a whole number of at least 1"),
    ],
    ids=["missing", "wrong type", "unknown", "shortened", "misspelt", "not positive"],
)
def test_a_mistake_costs_one_line_and_code_2(parser, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(arguments)
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.endswith("see `segment --help`\n")
    assert line.count("\n") == 1
    assert message in line


def test_what_follows_two_dashes_is_no_flag():
    parser = OneLineParser(prog="segment")
    parser.add_argument("words", nargs="*")
    assert parser.parse_args(["--", "--threshold"]).words == ["--threshold"]


def test_good_arguments_are_read(parser):
    arguments = parser.parse_args(["--threshold", "0.25", "--count", "3"])
    assert (arguments.threshold, arguments.count) == (0.25, 3)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many"])
def test_positive_int_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        positive_int(text)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_explain_themselves(path):
    result = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert path.name in result.stdout
    assert "--help" in result.stdout


def test_the_benchmark_of_inference_takes_the_released_code():
    command = [sys.executable, str(ROOT / "benchmarks" / "inference.py"), "--help"]
    assert "--peer CHECKOUT" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_benchmark_refuses_an_unknown_flag():
    command = [sys.executable, str(ROOT / "benchmarks" / "inference.py"), "--warp"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--warp" in result.stderr
    assert "Traceback" not in result.stderr


def listed(*arguments):
    command = [sys.executable, "-m", "unilseg_jax", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)], ids=["nothing", "help", "h"])
def test_the_package_lists_its_commands(arguments):
    result = listed(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert __version__ in result.stdout
    assert "  train     trains a model.\n" in result.stdout


def test_the_package_is_no_command():
    result = listed("train", "--help")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "error: unexpected argument 'train'; run python -m unilseg_jax.COMMAND, of compare, "
    )
    assert result.stderr.count("\n") == 1


def test_every_module_with_a_main_is_listed():
    trees = {path.stem: ast.parse(path.read_text()) for path in (ROOT / "unilseg_jax").glob("[!_]*.py")}
    functions = {
        name: [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] for name, tree in trees.items()
    }
    assert set(commands()) == {name for name, found in functions.items() if "main" in found}


def test_the_list_needs_no_heavy_module():
    code = "import sys, unilseg_jax.__main__ as m; m.main([]); sys.exit(bool({'jax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT).returncode == 0
