"""The bare package imports at once and without heavy company."""

import json
import subprocess
import sys

import pytest

import unilseg_jax

FOREIGN = ("torch", "tensorflow", "tensorflow_datasets")


def imported_by(statement):
    """Returns the top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_imports_neither_jax_nor_other_frameworks():
    assert not imported_by("import unilseg_jax") & {*FOREIGN, "jax", "flax", "numpy"}


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "plan"])
def test_a_command_hears_signals_and_finds_mistakes_before_jax_is_there(command):
    assert "jax" not in imported_by(f"import unilseg_jax.{command}")


def test_importing_the_segmenter_imports_no_other_framework():
    assert not imported_by("from unilseg_jax import Segmenter") & set(FOREIGN)


def test_the_api_stands_at_the_top():
    assert unilseg_jax.Segmenter.__name__ == "Segmenter"
    assert unilseg_jax.Prediction.__name__ == "Prediction"
    assert unilseg_jax.__version__.count(".") == 2
    assert {"Segmenter", "Prediction", "__version__"} <= set(dir(unilseg_jax))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = unilseg_jax.Segmentor
