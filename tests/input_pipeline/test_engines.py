"""The engines that run shards: how they end, and what they report. What they make is tested with the shards."""

import os
import sys

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import engines
from unilseg_jax.input_pipeline.catalogue import load_builder


def test_worker_that_dies_is_one_clear_line():
    with pytest.raises(UserError, match=r"a worker process died.*what is finished is kept") as caught:
        list(engines.run_local(os._exit, [(1,)], 1))
    assert "\n" not in str(caught.value)


def test_missing_ray_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed; pip install 'unilseg_jax\[ray\]'"):
        list(engines.run_ray(print, [()], 1))


def test_empty_list_of_tasks_starts_no_engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for engine in engines.ENGINES.values():
        assert list(engine(os._exit, [], 2)) == []


@pytest.mark.slow
def test_ray_reports_a_users_error_in_one_line():
    pytest.importorskip("ray", reason="RAY NOT TESTED: the extra `ray` is not installed")
    with pytest.raises(UserError, match=r"^no builder for the data set 'nothing'") as caught:
        list(engines.run_ray(load_builder, [("nothing",)] * 3, 2))
    assert "\n" not in str(caught.value)


def test_users_error_of_a_worker_is_one_line():
    with pytest.raises(UserError, match=r"^no builder for the data set 'nothing'") as caught:
        list(engines.run_local(load_builder, [("nothing",)] * 3, 2))
    assert "\n" not in str(caught.value)


def test_every_task_is_run_once(tmp_path):
    tasks = [(tmp_path / str(number),) for number in range(7)]
    assert len(list(engines.run_local(os.mkdir, tasks, 3))) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in range(7)]
