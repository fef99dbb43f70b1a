"""What the benchmarks read out of compiled programs, and what they reckon from it."""

import importlib.util
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", FOLDER / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_collectives_of_a_program_are_counted_once_with_bytes_and_groups(scaling):
    found = [(one["operation"], one["bytes"], one["group"]) for one in scaling.collectives(PROGRAM, devices=4)]
    assert found == [
        ("all-reduce", 160, 4),
        ("all-reduce", 32 + 12, 2),
        ("all-gather", 64, 2),
        ("all-gather", 64, 4),
        ("reduce-scatter", 4, 4),
    ]


def test_a_ring_sends_what_it_must(scaling):
    # Four devices, 400 bytes: each sends its quarter three times to reduce, and three times to spread the sums.
    assert scaling.sent_bytes("all-reduce", 400, 4) == 600
    assert scaling.sent_bytes("all-gather", 400, 4) == 300
    assert scaling.sent_bytes("reduce-scatter", 100, 4) == 300
    assert scaling.sent_bytes("all-reduce", 400, 1) == 0
