"""What `tfds build data/NAME` does, but for the command itself, which wants TensorFlow."""

import sys

import pytest
import tensorflow_datasets as tfds

from unilseg_jax.input_pipeline.catalogue import BUILDERS, builder_names, load_stand_in
from unilseg_jax.input_pipeline.conversion import read_report

COUNT = 1
NAMES = builder_names()


@pytest.fixture
def data_on_the_path(monkeypatch):
    """The folder of the builders as the command has it; no top-level module called `coco` is left behind."""
    monkeypatch.syspath_prepend(BUILDERS)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in NAMES]:
        del sys.modules[name]


@pytest.mark.usefixtures("data_on_the_path")
@pytest.mark.parametrize("name", NAMES)
def test_set_is_prepared_by_tfds_from_its_module(tmp_path, name):
    (tmp_path / "raw").mkdir()
    load_stand_in(name).write(tmp_path / "raw", COUNT)
    builder_class = tfds.core.community.builder_cls_from_module(f"{name}.{name}_dataset_builder")
    assert builder_class.name == name
    for config in builder_class.found_configs(tmp_path / "raw"):
        builder = builder_class(data_dir=str(tmp_path / "out"), config=config)
        options = tfds.download.DownloadConfig(manual_dir=str(tmp_path / "raw"))
        builder.download_and_prepare(
            download_dir=str(tmp_path / "downloads"), download_config=options, file_format="array_record"
        )
        counts, _ = read_report(tmp_path / "out" / name / config / "1.0.0")
        assert {split: info.num_examples for split, info in builder.info.splits.items()} == {
            split: sizes.pictures for split, sizes in counts.items()
        }
        assert all(sizes.pictures >= COUNT and not sizes.skipped for sizes in counts.values()), config
