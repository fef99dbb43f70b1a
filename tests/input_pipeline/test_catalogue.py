"""Our builders beside those of TFDS."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = "assert load_builder('coco').name == 'coco'"
THEIRS = "assert tfds.builder_cls('coco').__module__ == 'tensorflow_datasets.object_detection.coco'"


@pytest.mark.parametrize("order", [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours first", "theirs first"])
def test_builder_of_tfds_of_the_same_name_does_not_get_in_the_way(order):
    """In a process of its own, since TFDS's registry is kept for ever."""
    imports = "import tensorflow_datasets as tfds; from unilseg_jax.input_pipeline.catalogue import load_builder"
    command = [sys.executable, "-c", "; ".join((imports, *order))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
