"""What a run says about its own speed."""

import time
from types import SimpleNamespace

import jax
import pytest

from unilseg_jax.training import watch
from unilseg_jax.training.chips import Chip


@pytest.fixture
def two_devices(monkeypatch):
    """Lets JAX have two devices of a kind."""

    def pretend(kind):
        monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind=kind)] * 2)
        monkeypatch.setattr(jax, "device_count", lambda: 2)

    return pretend


@pytest.mark.parametrize(("dtype", "utilisation"), [("float32", 0.75), ("bfloat16", 0.125)])
def test_speed_is_the_models_flops_and_their_share_of_all_chips_peak(dtype, utilisation, two_devices, monkeypatch):
    two_devices("abacus")
    chip = Chip(name="abacus", bfloat16=12.0, float32=2.0, memory=1.0, link=1.0, kind="abacus")
    monkeypatch.setattr(watch, "chip_of", lambda kind: chip if kind == "abacus" else None)
    # 6 pictures a second of 0.5 TFLOP each: 3 TFLOP/s, on two chips of 2 or 12 TFLOP/s.
    assert watch.speed(6.0, 0.5e12, dtype) == {"train/model_tflop_per_s": 3.0, "train/utilisation": utilisation}


def test_speed_on_a_chip_that_is_not_in_the_table_has_no_utilisation(two_devices):
    two_devices("abacus")
    assert watch.speed(6.0, 0.5e12, "float32") == {"train/model_tflop_per_s": 3.0}


def test_a_step_of_float32_on_a_known_chip_uses_its_plain_peak(two_devices):
    two_devices("NVIDIA A100-SXM4-80GB")
    assert watch.speed(39.0, 0.5e12, "float32")["train/utilisation"] == pytest.approx(0.5)


def test_times_are_divided_among_data_checkpoints_and_computing(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    times = watch.StepTimes()

    def spend(seconds, part=None):
        if part is None:
            now[0] += seconds
            return
        with times.of(part):
            now[0] += seconds

    spend(6.0)
    spend(1.0, watch.DATA)
    spend(2.0, watch.CHECKPOINT)
    spend(50.0, watch.EVALUATION)
    assert times.report(2) == {"train/data_s": 0.5, "train/checkpoint_s": 1.0, "train/compute_s": 3.0}
    spend(4.0)
    assert times.report(4) == {"train/data_s": 0.0, "train/checkpoint_s": 0.0, "train/compute_s": 1.0}
