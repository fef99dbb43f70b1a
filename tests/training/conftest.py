"""Fixtures that several tests of training share."""

import pytest

from unilseg_jax.training import model_directory


@pytest.fixture
def any_tree_is_a_model(monkeypatch):
    """Lets `load_pretrained` read `tree`."""
    monkeypatch.setattr(model_directory, "variable_differences", lambda *_: [])
