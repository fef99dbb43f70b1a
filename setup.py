"""Packaging of unilseg_jax; tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "unilseg_jax" / "version.py").read_text()).group(1)

# Lower bounds only: the versions the tests were first run with, or the oldest with the interface we use.
CORE = [
    "jax>=0.7",
    "flax>=0.11",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.20",
    "grain>=0.2.12",
    "ml_collections>=1.0",
    "tensorflow-datasets>=4.9.9",
    "importlib_resources>=6.0",  # tensorflow-datasets imports it without naming it
    "array_record>=0.7",
    "numpy>=2.0",  # bitwise_count
    "ml_dtypes>=0.4",
    "pillow>=10.3",
    "opencv-python-headless>=4.9",
    "simplejpeg>=1.8",  # says where a JPEG has lost data; the others fill it up
    "pycocotools>=2.0.8",
    "einops>=0.8",
    "jaxtyping>=0.2.36",
    "ftfy>=6.2",
    "instant-clip-tokenizer>=0.1.0; python_version < '3.13'",
    "safetensors>=0.4.5",
    "scipy>=1.11",
    "pysodmetrics>=1.6",  # holds NumPy below 2.3.5 and OpenCV below 5
    "imagehash>=4.3",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "rich>=13.7",
    "tensorboardX>=2.6.2",
    "absl-py>=2.1",
    "packaging>=24.0",
]
EXTRAS = {
    "cuda": ["jax[cuda12]>=0.7"],
    "tpu": ["jax[tpu]>=0.7"],
    "torch": ["torch>=2.4", "torchmetrics>=1.4"],
    "hf": ["transformers>=4.48"],
    "ray": ["ray>=2.30"],
    "dev": ["pytest>=8.2", "pytest-xdist>=3.6", "beartype>=0.19", "ruff>=0.9", "pyrefly>=1.0", "pre-commit>=3.7"],
}

setup(
    name="unilseg_jax",
    version=VERSION,
    description="Universal segmentation at arbitrary granularity with language instruction, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["unilseg_jax", "unilseg_jax.*"]),
    package_data={
        "unilseg_jax.text": ["names/*.tsv"],
        "unilseg_jax.evaluation": ["paper/*.tsv", "templates/*.jinja"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
)
