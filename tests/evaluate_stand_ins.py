"""Stand-ins of every benchmark, prepared, and a small model of random weights, for tests of `evaluate`."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
from tiny_model import random_variables
from tiny_run import ARCHITECTURE

from unilseg_jax import prepare
from unilseg_jax.evaluation.benchmarks import BENCHMARKS
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training.model_directory import save_pretrained

INPUT_SIZE = 32
SETS = {
    "refcoco": ("refcoco", "refcoco+", "refcocog"),
    "grefcoco": (),
    "ref_youtube_vos": ("valid", "valid_with_masks"),
    "ref_davis17": (),
    "ade20k": (),
    "pascal_context": ("png",),
    "salient": ("ecssd", "sod", "pascal_s"),
    "part_imagenet": ("seg",),
}
"""What is prepared; none for all of a set's configurations."""
LEFT_OUT = ("refcocos", "davis", "pairs")
"""Benchmarks that are not prepared; they are none of the paper's."""
SPLITS = tuple(
    (name, split) for name, benchmark in BENCHMARKS.items() if name not in LEFT_OUT for split in benchmark.splits
)
"""What `--benchmark all` judges."""


def prepare_all(folder, pictures=2):
    """Prepares stand-ins of all sets and returns the folder for `--data`."""
    with contextlib.redirect_stdout(io.StringIO()):
        for name, configs in SETS.items():
            chosen = [part for config in configs for part in ("--config", config)]
            raw, out = ["--raw", str(folder / "raw" / name)], ["--out", str(folder / "prepared")]
            prepare.main([name, "--synthetic", str(pictures), *raw, *out, *chosen])
    return str(folder / "prepared")


def save_tiny(folder):
    """Saves a model of random weights without the boxes that take long to compile, and returns its directory."""
    sizes = Architecture(**ARCHITECTURE, pre_fusion=False, language_path=False, vision_path=False)
    images, tokens = jnp.zeros((1, INPUT_SIZE, INPUT_SIZE, 3)), jnp.ones((1, 1, sizes.word_len), jnp.int32)
    variables = jax.tree.map(np.asarray, random_variables(UniLSeg(sizes), images, tokens))
    pretrained = Pretrained(architecture=sizes, variables=variables, input_size=INPUT_SIZE)
    save_pretrained(folder / "model", pretrained)
    return str(folder / "model")


def results_of(output):
    """Returns the bytes of every results.json by its folder's name."""
    return {path.parent.name: path.read_bytes() for path in sorted(output.glob("*/results.json"))}


def numbers_of(output, folder):
    """Returns the entries of a benchmark's results."""
    return json.loads((output / folder / "results.json").read_text())["numbers"]
