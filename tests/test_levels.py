"""Imports run downwards only: the house has levels, and no module imports one above it."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "unilseg_jax"
# A folder's level holds for all its modules; a module of the top folder that is not named is a command.
LEVELS = {
    "version": 0,
    "errors": 0,
    "locks": 0,
    "command_line": 0,
    "shapes": 0,
    "xla_flags": 0,
    "ops": 0,
    "text": 1,
    "losses": 1,
    "metrics": 1,
    "models": 1,
    "config": 2,
    "config_check": 2,
    "config_flags": 2,
    "interop": 2,
    "input_pipeline": 2,
    "training": 3,
    "evaluation": 3,
    "segmenter": 3,
}
COMMANDS = 4


def modules():
    """Returns the package's modules by dotted name, without the package itself (its door to the API)."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != PACKAGE:
            found[name] = path
    return found


def imports(path, known):
    """Returns the modules of the package that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name in known}


def level(module):
    return LEVELS.get(module.split(".")[1], COMMANDS)


@pytest.fixture(scope="module")
def graph():
    known = modules()
    return {name: imports(path, known) for name, path in known.items()}


def test_no_module_imports_one_of_a_higher_level(graph):
    wrong = [
        f"{module} (level {level(module)}) imports {other} (level {level(other)})"
        for module, others in graph.items()
        for other in others
        if level(other) > level(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_imports_run_in_a_circle(graph):
    leaves = {
        module: {other for other in others if other != module and not module.startswith(other + ".")}
        for module, others in graph.items()
    }
    list(graphlib.TopologicalSorter(leaves).static_order())


def test_commands_do_not_import_commands(graph):
    wrong = [
        (module, other)
        for module, others in graph.items()
        for other in others
        if level(module) == level(other) == COMMANDS
    ]
    assert not wrong


def test_evaluation_does_not_import_training(graph):
    for module, others in graph.items():
        if module.startswith(f"{PACKAGE}.evaluation"):
            assert not [other for other in others if other.startswith(f"{PACKAGE}.training")]


def test_the_levels_name_what_there_is():
    tops = {name.split(".")[1] for name in modules()}
    assert set(LEVELS) <= tops
