"""Planning: what is counted equals what is there, and what cannot fit is refused with one line."""

import functools
from pathlib import Path

import jax
import pytest

from unilseg_jax import plan
from unilseg_jax.config import parse_flags
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.training import chips, planning
from unilseg_jax.training.planning import Footprint

ROOT = Path(__file__).resolve().parents[1]
CONFIG = f"{ROOT / 'configs' / 'ablation.py'}:baseline,debug"
COST = Footprint(
    parameters=10,
    flops=1e9,
    parameter_bytes=40,
    optimizer_bytes=80,
    gradient_bytes=40,
    fixed_bytes=5,
    picture_bytes=100,
    source="given",
)


@pytest.fixture
def given_cost(monkeypatch):
    """Takes the place of tracing a model, which is tested by itself."""
    monkeypatch.setattr(planning, "footprint", lambda *_, **__: COST)


def test_a_device_holds_its_state_and_the_pictures_of_a_micro_batch():
    assert COST.device_bytes(1) == 40 + 80 + 40 + 5 + 100
    assert COST.device_bytes(3) - COST.device_bytes(1) == 200
    assert COST.device_bytes(1, accumulate=4) == COST.device_bytes(1) + 40


@pytest.mark.parametrize(("budget", "wanted"), [(965, 1), (964, 2), (605, 2), (604, 4), (305, 8), (304, None)])
def test_the_fewest_micro_batches_that_fit(budget, wanted):
    assert plan.fitting_accumulation(COST, 8, budget) == wanted


def test_plan_prints_what_fits_and_how_long_it_takes(given_cost, capsys):
    plan.main([f"--config={CONFIG}", "--chips=2xh200", "--utilisation=0.5", "--config.epoch_visits=134000000"])
    out = capsys.readouterr().out
    assert out.startswith("compiling the step, which takes minutes (--estimate compiles nothing)\n")
    assert "50 % of the chips' peak (--utilisation)" in out
    # 2 chips, 67 TFLOP/s in float32, half of it, 1 GFLOP per picture: 67,000 pictures/s.
    assert " 67,000 pictures/s" in out
    assert "an epoch of 134,000,000 visits" in out
    assert "33.3 minutes" in out
    assert " steps of 8 pictures = 0.00 epochs of 134,000,000 visits" in out
    rows = [line.split() for line in out.splitlines() if line.split()[0].isdigit()]
    assert [row[:2] for row in rows[-3:]] == [["1", "4"], ["2", "2"], ["4", "1"]]
    assert "as the config says" in out


def refused(*arguments):
    with pytest.raises(UserError) as caught:
        plan.main([f"--config={CONFIG}", *arguments])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_batch_that_does_not_fit_is_refused_with_what_would(given_cost, monkeypatch):
    monkeypatch.setattr(plan, "USABLE", 700 / (16 * 2**30))
    text = refused("--chips=1xV100-16")
    assert "batch size 8 does not fit: 8 pictures at a time" in text
    assert "set --config.optim.accumulate=2" in text
    plan.main([f"--config={CONFIG}", "--chips=1xV100-16", "--config.optim.accumulate=2"])
    monkeypatch.setattr(plan, "USABLE", 200 / (16 * 2**30))
    assert "not even one at a time" in refused("--chips=1xV100-16")


def test_the_command_ends_with_code_2_where_nothing_fits(given_cost, monkeypatch, capsys):
    monkeypatch.setattr(plan, "USABLE", 1e-9)
    with pytest.raises(SystemExit) as caught:
        run_command(plan.main, [f"--config={CONFIG}", "--chips=1xH200"])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: batch size 8 does not fit")
    assert captured.err.count("\n") == 1
    assert "fits in" in captured.out, "the table is there all the same"


def test_chips_and_batch_that_do_not_go_together_are_refused():
    assert "does not divide among 3 chips" in refused("--chips=3xH200")
    assert "no chip 'H900' in the table; there are V100-16" in refused("--chips=8xH900")
    assert "mesh.fsdp 3 does not divide 2 chips" in refused("--chips=2xH200", "--config.mesh.fsdp=3")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--chips=H200"], "is not NxNAME"),
        (["--chips=0xH200"], "is not NxNAME"),
        (["--chips=8xH200", "--utilisation=2"], "is not a share"),
        (["--chips=8xH200"], "--config FILE is missing"),
    ],
)
def test_wrong_arguments_cost_one_line(arguments, text, capsys):
    with pytest.raises(SystemExit) as caught:
        plan.main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("TPU v4", "TPUv4"),
        ("TPU v5 lite", "TPUv5e"),
        ("TPU v5p", "TPUv5p"),
        ("TPU v6 lite", "TPUv6e"),
        ("cpu", None),
    ],
)
def test_devices_are_found_in_the_table(kind, name):
    found = chips.chip_of(kind)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("name", "float32", "bfloat16"),
    [("V100", 15.7e12, 15.7e12), ("A100", 19.5e12, 312e12), ("H200", 67e12, 989e12), ("TPUv5p", 76.5e12, 459e12)],
)
def test_float32_is_not_planned_with_rounded_factors(name, float32, bfloat16):
    assert chips.chip_named(name).peak("float32") == pytest.approx(float32)
    assert chips.chip_named(name).peak("bfloat16") == pytest.approx(bfloat16)


# ---- What is counted -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config():
    return parse_flags([f"--config={CONFIG}", "--workdir=unused"])[0]


@pytest.fixture(scope="module")
def estimate(config):
    """A model without the boxes of Table 8, traced."""
    return planning.footprint(config, compiled=False)


def test_parameters_and_moments_are_those_of_the_state(config, estimate):
    state = planning.program(config, planning.one_device()).state
    assert estimate.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert estimate.gradient_bytes == 4 * estimate.parameters
    # Two moments, and a count.
    assert 8 * estimate.parameters <= estimate.optimizer_bytes < 8 * estimate.parameters + 100


def test_flops_and_activations_of_a_step_are_counted(config, estimate):
    # The text encoder alone, with two phrases of 14 tokens: forward and twice that backward, 2 per weight and token.
    text = sum(
        leaf.size
        for leaf in jax.tree.leaves(planning.program(config, planning.one_device()).state.params["text_encoder"])
        if leaf.ndim == 2 and leaf.shape[0] < 1000
    )
    assert 6 * text * 2 * 14 < estimate.flops < 1e9
    # At least the logits' masks at the input's size, float32.
    assert estimate.picture_bytes > 4 * 2 * 32 * 32


@functools.cache
def activations(remat, compiled):
    """Returns the footprint of a model whose activations outweigh all else."""
    config = parse_flags([f"--config={CONFIG}", "--workdir=unused", "--config.input.size=96"])[0]
    with config.unlocked():
        config.remat = remat
        config.model.vocab_size = 100  # less than a run may have: its gradient would be the most of it
    return planning.footprint(config, compiled=compiled)


@pytest.mark.slow
def test_an_estimate_is_near_what_the_compiler_takes():
    estimated, compiled = activations("none", compiled=False), activations("none", compiled=True)
    assert compiled.source == "compiled for cpu"
    assert 0.5 < estimated.picture_bytes / compiled.picture_bytes < 2


@pytest.mark.slow
def test_an_estimate_is_less_with_remat():
    estimated = activations("none", compiled=False)
    assert estimated.source == "estimated; XLA may need more or less"
    # Compiled for a CPU a plan would not show that anything is computed again.
    full = activations("full", compiled=True)
    assert "compiling for a CPU undoes remat" in full.source
    assert full.picture_bytes < 0.7 * estimated.picture_bytes
    assert full.flops == estimated.flops


def test_what_is_frozen_keeps_nothing_for_the_backward_pass(config, estimate):
    with config.copy_and_resolve_references().unlocked() as frozen:
        frozen.optim.lr_scales = (("image_encoder/", 0.0), (".*", 1.0))
        found = planning.footprint(frozen, compiled=False)
    assert found.picture_bytes < estimate.picture_bytes
    assert found.gradient_bytes < estimate.gradient_bytes


def test_the_share_of_a_device_is_what_the_sharding_rule_says():
    tree = {
        "big": jax.ShapeDtypeStruct((512, 1024), jax.numpy.float32),
        "small": jax.ShapeDtypeStruct((8,), jax.numpy.float32),
    }
    shares = planning.divided(tree, 4)
    assert shares["big"].shape == (512, 256)
    assert shares["small"].shape == (8,)
    assert planning.divided(tree, 1) is tree
