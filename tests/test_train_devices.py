"""A run that is stopped on one device and goes on with two sees the samples it would have seen."""

import signal

import jax
import numpy as np
import pytest
from tiny_run import STEPS, curve, flags, run, stop_at

from unilseg_jax.training.model_directory import load_pretrained

pytestmark = pytest.mark.slow
CHANGES = {"checkpoint_every": 100, "model__stochastic_depth": 0.0, "model__dropout": 0.0}
"""No noise. It is the same on any number of devices (`training/test_step.py`), but where whole pictures of a batch of
two are dropped, rounding grows beyond the bounds in a few steps."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """The directory of a run on one device that nobody stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, _, err = run(flags(workdir, **CHANGES), cache)
    assert code == 0, err
    return workdir


@pytest.fixture(scope="module")
def continued(cache, tmp_path_factory):
    """(directory, first step on two devices) of a run that was stopped on one."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    code, err = stop_at("step 4/", signal.SIGTERM, flags(workdir, **CHANGES), cache)
    assert code == 75, err
    (saved,) = (int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 4 <= saved < STEPS
    code, out, err = run(flags(workdir, **CHANGES), cache, devices=2)
    assert code == 0, err
    assert f"2 cpu device(s), steps {saved} to {STEPS}" in out
    return workdir, saved


def test_losses_are_those_of_one_device(whole, continued):
    workdir, saved = continued
    wanted, found = curve(whole), curve(workdir)
    assert [line["step"] for line in found] == [line["step"] for line in wanted] == list(range(1, STEPS + 1))
    assert found[:saved] == wanted[:saved], "on one device"
    after = [[line["train/loss"] for line in lines[saved:]] for lines in (found, wanted)]
    np.testing.assert_allclose(*after, rtol=1e-5)
    # Samples in another order, or others, would be seen: steps differ by much more than the bound.
    assert np.abs(np.diff(after[1])).min() > 1e-4 * max(after[1])


def test_parameters_are_those_of_one_device(whole, continued):
    pairs = zip(*(jax.tree.leaves(load_pretrained(each).variables) for each in (continued[0], whole)), strict=True)
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
