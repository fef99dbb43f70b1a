"""What the benchmarks read out of compiled programs, and what they reckon from it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_model import SMALL

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

PROGRAM = """
  %p = f32[10,4]{1,0} parameter(0)
  %all-reduce.1 = f32[10,4]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %all-reduce.2 = (f32[8]{0}, bf16[2,3]{1,0}) all-reduce(%a, %b), replica_groups=[2,2]<=[4], to_apply=%add
  %all-gather.3 = f32[16]{0} all-gather(%c), replica_groups=[2,2]<=[4], dimensions={0}
  %ag = (f32[4]{0}, f32[16]{0}) all-gather-start(%c), replica_groups={}, dimensions={0}
  %agd = f32[16]{0} all-gather-done(%ag)
  %rs = f32[] reduce-scatter(%d), replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %copy = f32[10,4]{1,0} copy(%all-reduce.1)
"""


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scaling():
    return load("scaling")


@pytest.fixture(scope="module")
def evaluate():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return load("evaluate")


@pytest.fixture(scope="module")
def train_step():
    return load("train_step")


def a_job(train_step, text):
    fixed = dict.fromkeys(train_step.FIXED) | {"size": "base", "input_size": 480, "steps": 20}
    return fixed | dict(zip(train_step.AXES, train_step.row_of(text), strict=True))


def test_a_row_is_named_by_all_that_its_program_depends_on(train_step):
    job = a_job(train_step, "bfloat16:none:4:16")
    assert (job["dtype"], job["remat"], job["prompts"], job["batch_size"]) == ("bfloat16", "none", 4, 16)
    changes = ({}, {"size": "tiny"}, {"input_size": 384}, {"prompts": 1}, {"dtype": "float32"}, {"remat": "full"})
    names = {train_step.file_of(job | change, "saved") for change in (*changes, {"batch_size": 8})}
    assert len(names) == len(changes) + 1
    assert train_step.file_of(job, "saved") == "saved/base-480-bfloat16-none-4-16.bin"


def test_a_row_s_speed_and_share_of_the_peak(train_step, capsys):
    from unilseg_jax.training.chips import chip_named

    row = {"seconds": 0.25, "flops": 2e12, "memory": 3 * 2**30, "compiling": 61.4}
    train_step.print_row(a_job(train_step, "bfloat16:none:4:16"), row, chip_named("H100"))
    # 64 pictures/s of 2 TFLOP are 128 of 989 TFLOP/s.
    assert (
        capsys.readouterr().out == "| bfloat16 | none | 4 | 16 | 250.0 | 64.00 | 256.00 | 128 | 12.9% | 3.00 | 61 |\n"
    )
    train_step.print_row(a_job(train_step, "float32:full:1:8"), {"failed": "does not fit"}, None)
    assert capsys.readouterr().out.startswith("| float32 | full | 1 | 8 | does not fit |")


@pytest.mark.slow
def test_a_row_is_compiled_by_one_process_and_measured_by_another(tmp_path):
    command = [sys.executable, FOLDER / "train_step.py", "--size", "least", "--input-size", "64", "--steps", "5"]
    command += ["--rows", "float32:none:1:2"]
    missing = subprocess.run([*command, "--load", tmp_path], capture_output=True, text=True, check=True)
    assert "least-64-float32-none-1-2.bin; make it with --save" in missing.stderr
    assert "| float32 | none | 1 | 2 | ended with code 1 |" in missing.stdout
    saved = subprocess.run([*command, "--save", tmp_path], capture_output=True, text=True, check=True).stdout
    assert "| float32 | none | 1 | 2 | saved |" in saved
    measured = subprocess.run([*command, "--load", tmp_path], capture_output=True, text=True, check=True).stdout
    assert float(measured.splitlines()[-1].split("|")[5]) > 0, measured


def test_collectives_of_a_program_are_counted_once_with_bytes_and_groups(scaling):
    found = [(one["operation"], one["bytes"], one["group"]) for one in scaling.collectives(PROGRAM, devices=4)]
    assert found == [
        ("all-reduce", 160, 4),
        ("all-reduce", 32 + 12, 2),
        ("all-gather", 64, 2),
        ("all-gather", 64, 4),
        ("reduce-scatter", 4, 4),
    ]


def test_groups_along_data_grow_and_those_of_fsdp_stay(scaling):
    text = """
  %all = f32[4]{0} all-reduce(%a), replica_groups=[1,8]<=[8], to_apply=%add
  %data = f32[4]{0} all-reduce(%a), replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
  %fsdp = f32[4]{0} all-gather(%a), replica_groups=[4,2]<=[8], dimensions={0}
  %data_again = f32[4]{0} all-reduce(%a), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  %fsdp_again = f32[4]{0} all-gather(%a), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}
"""
    found = scaling.collectives(text, devices=8)
    assert [one["group"] for one in found] == [8, 4, 2, 4, 2]
    assert [scaling.group_of(one, 192, fsdp=2) for one in found] == [192, 96, 2, 96, 2]


def test_a_ring_sends_what_it_must(scaling):
    # Four devices, 400 bytes: each sends its quarter three times to reduce, and three times to spread the sums.
    assert scaling.sent_bytes("all-reduce", 400, 4, 4) == (600, 0)
    assert scaling.sent_bytes("all-gather", 400, 4, 4) == (300, 0)
    assert scaling.sent_bytes("reduce-scatter", 100, 4, 4) == (300, 0)
    assert scaling.sent_bytes("all-reduce", 400, 1, 1) == (0, 0)


def test_between_nodes_each_device_tells_its_share(scaling):
    # Two nodes of four, 800 bytes: sums of quarters within, a half of a quarter to the other node, and back again.
    assert scaling.sent_bytes("all-reduce", 800, 8, 4) == (1200, 200)
    assert scaling.sent_bytes("all-gather", 800, 8, 4) == (600, 100)
    assert scaling.sent_bytes("reduce-scatter", 100, 8, 4) == (600, 100)
    # Of eight parts a device keeps one, sends three to its node and four to the other.
    assert scaling.sent_bytes("all-to-all", 800, 8, 4) == (300, 400)
    assert scaling.sent_bytes("collective-permute", 800, 8, 4) == (0, 800)
    # With a device per node all goes between them, as in one ring.
    assert scaling.sent_bytes("all-reduce", 800, 8, 1) == (0, 1400)


@pytest.mark.parametrize(
    ("axis", "group", "fsdp", "wanted"),
    [
        ("all", 64, 1, 8),
        ("data", 32, 2, 4),
        ("data", 8, 8, 1),
        ("data", 4, 16, 1),
        ("fsdp", 2, 2, 2),
        ("fsdp", 16, 16, 8),
    ],
)
def test_how_much_of_a_group_is_in_one_node(scaling, axis, group, fsdp, wanted):
    assert scaling.of_node({"axis": axis, "group": group}, 64, fsdp, node=8) == wanted


def test_the_phrases_are_ade20ks_classes(evaluate):
    phrases = evaluate.class_phrases(150)
    assert len(phrases) == 150
    assert phrases[:2] == ["all wall", "all building"]


def test_the_ratio_is_of_turns_and_the_throughput_its_inverse(evaluate):
    turns = [
        {
            side: {"seconds": {"label map": [first, first / 4], "masks": [2 * first, first]}, "peak": 1.5}
            for side, first in turn.items()
        }
        for turn in ({"ours": 10.0, "peer": 20.0}, {"ours": 30.0, "peer": 40.0}, {"ours": 12.0, "peer": 30.0})
    ]
    header, _, labels, processor, masks, _ = evaluate.table(turns, phrases=4)
    assert header == "| result | ours | peer | ours / peer | throughput |"
    assert labels == (
        "| label map, clock | 12.0 s (10.0 to 30.0), 3.00 s a phrase, peak 1.50 GiB "
        "| 30.0 s (20.0 to 40.0), 7.50 s a phrase, peak 1.50 GiB | 0.50 (0.40 to 0.75) | 2.00 × |"
    )
    assert processor.startswith("| label map, processor | 3.0 s (2.5 to 7.5)")
    assert masks.startswith("| masks, clock | 24.0 s (20.0 to 60.0)")
    alone = evaluate.table([{"ours": turn["ours"]} for turn in turns], phrases=4)
    assert alone[0] == "| result | ours |"


def test_agreement_counts_pixels(evaluate, tmp_path):
    labels, masks = np.array([[1, 2], [3, 4]]), np.zeros((2, 2, 2), bool)
    np.savez(tmp_path / "results_ours.npz", **{"label map": labels, "masks": masks})
    np.savez(tmp_path / "results_peer.npz", **{"label map": labels % 4, "masks": masks})
    assert evaluate.agreement(tmp_path) == "pixels alike: label map 75.000 %, masks 100.000 %"


@pytest.mark.slow
def test_our_side_segments_by_classes(evaluate, tmp_path):
    evaluate.prepare(tmp_path, SMALL, 64, 3)
    results, seconds = evaluate.ours(tmp_path, [2])(3)
    assert results["label map"].shape == (64, 64)
    assert results["masks"].shape == (3, 64, 64)
    assert set(seconds) == {"label map", "masks"}
    # Of what is masked at all, the label map's class is.
    masked = results["masks"].any(0)
    one = np.take_along_axis(results["masks"], results["label map"][None].astype(int), 0)[0]
    assert masked.any()
    assert (one[masked]).mean() > 0.95
