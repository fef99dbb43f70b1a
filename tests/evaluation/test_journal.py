"""Finished work on disk: parts of any sizes by any process add up to the same, and what is damaged is done again."""

import numpy as np
import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation import journal as journal_module
from unilseg_jax.evaluation.journal import Journal, merged
from unilseg_jax.evaluation.judges.base import UnitResult, samples_of

COUNT = 7


def result(unit):
    """Returns what a unit found: as many samples as its number modulo 3, with ever longer names."""
    count = unit % 3
    samples = samples_of(
        f"picture {10**unit}",
        [f"{'very ' * unit}large {number}" for number in range(count)],
        ["kind"] * count,
        [unit / 10] * count,
        first=np.arange(count) == 0,
    )
    rows = {
        "paper": {"union": np.arange(count) + unit, "curve": np.full((count, 4), unit / 3)},
        "released/50px": {"expression_id": np.array([f"{'x' * unit}/{n}" for n in range(count)], np.str_)},
    }
    return UnitResult(samples, rows)


def assert_same(found, wanted):
    assert found.samples.keys() == wanted.samples.keys()
    for name, column in wanted.samples.items():
        np.testing.assert_array_equal(found.samples[name], column)
    assert found.rows.keys() == wanted.rows.keys()
    for table, rows in wanted.rows.items():
        for name, column in rows.items():
            np.testing.assert_array_equal(found.rows[table][name], column)
            assert found.rows[table][name].dtype.kind == column.dtype.kind


WHOLE = merged([(unit, result(unit)) for unit in range(COUNT)])


def write(folder, parts, process=0):
    """Writes parts of the journal, each of some units."""
    for units in parts:
        journal = Journal(folder, process)
        for unit in units:
            journal.add(unit, result(unit))
        journal.flush()


def test_units_have_their_samples_in_order():
    assert WHOLE.samples["unit"].tolist() == [1, 2, 2, 4, 5, 5]
    assert WHOLE.samples["number"].tolist() == [0, 0, 1, 0, 0, 1]
    assert WHOLE.rows["paper"]["union"].tolist() == [1, 2, 3, 4, 5, 6]
    assert WHOLE.rows["released/50px"]["expression_id"].tolist()[-1] == "xxxxx/1"


@pytest.mark.parametrize(
    "shares",
    [
        [[range(COUNT)]],
        [[[unit] for unit in range(COUNT)]],
        [[[0, 2], [4, 6]], [[1, 3, 5]]],
        [[[6, 0], [3]], [[5, 4, 1]], [[2]]],
    ],
    ids=["one part", "a part each", "two processes", "three processes in disorder"],
)
def test_the_parts_boundaries_and_the_process_cannot_be_seen(tmp_path, shares):
    for process, parts in enumerate(shares):
        write(tmp_path, parts, process)
    journal = Journal(tmp_path)
    assert journal.done() == set(range(COUNT))
    assert_same(journal.collect(COUNT), WHOLE)


def test_a_unit_that_two_processes_did_counts_once(tmp_path):
    write(tmp_path, [range(5)], 0)
    write(tmp_path, [range(3, COUNT)], 1)
    assert_same(Journal(tmp_path).collect(COUNT), WHOLE)


def test_further_units_than_wanted_do_not_count(tmp_path):
    write(tmp_path, [range(COUNT)])
    assert_same(Journal(tmp_path).collect(4), merged([(unit, result(unit)) for unit in range(4)]))


def test_what_waits_is_written_after_a_while(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    journal = Journal(tmp_path)
    for unit in range(4):
        now[0] += 0.4 * journal_module.FLUSH_SECONDS
        journal.add(unit, result(unit))
    assert Journal(tmp_path).done() == {0, 1, 2}
    journal.flush()
    journal.flush()  # nothing waits any more
    assert Journal(tmp_path).done() == {0, 1, 2, 3}
    assert len(list(tmp_path.iterdir())) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def spoil_the_last_array(path):
    content = bytearray(path.read_bytes())
    place = content.rindex(b"\x93NUMPY") + 130  # behind the header of the array
    content[place] ^= 0xFF
    path.write_bytes(content)


def garble(path):
    path.write_bytes(b"no zip at all")


@pytest.mark.parametrize("damage", [cut, empty, spoil_the_last_array, garble])
def test_a_damaged_part_is_done_again(tmp_path, damage):
    write(tmp_path, [[0, 1], range(2, COUNT)])
    first, _ = sorted(tmp_path.iterdir())
    damage(first)
    journal = Journal(tmp_path)
    assert journal.done() == set(range(2, COUNT))
    assert not first.exists()
    with pytest.raises(UserError, match=rf"^2 of {COUNT} units of work are not in .*, such as number 0; .*--output"):
        journal.collect(COUNT)
    write(tmp_path, [[0, 1]])
    assert_same(Journal(tmp_path).collect(COUNT), WHOLE)


def test_a_part_that_was_half_written_is_no_part(tmp_path):
    write(tmp_path, [range(3)])
    (part,) = tmp_path.iterdir()
    (tmp_path / "part-0001-5.partial").write_bytes(part.read_bytes()[:100])
    assert Journal(tmp_path).done() == {0, 1, 2}
    with pytest.raises(UserError, match="such as number 3"):
        Journal(tmp_path).collect(COUNT)


def test_units_that_are_all_empty_add_nothing(tmp_path):
    write(tmp_path, [[0, 3], [6]])
    for found in (Journal(tmp_path).done(), {0, 3, 6}):
        assert found == {0, 3, 6}
    empties = merged([(unit, result(unit)) for unit in (0, 3, 6)])
    assert len(empties.samples["unit"]) == 0
    assert empties.rows["paper"]["curve"].shape == (0, 4)


def test_a_journal_of_finished_work_leaves_no_folder(tmp_path):
    journal = Journal(tmp_path / "a" / "work")
    journal.add(0, result(1))
    journal.flush()
    journal.remove()
    assert not (tmp_path / "a" / "work").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*; name another --output$"):
        Journal(tmp_path / "file" / "work")
