"""`karyon bench dag`: what it counts, on a cohort of a few dozen slides."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from karyon.bench.dag import DRY_RUN, jobs_by_rule, measure_dag, pretend_finished, synthetic_cohort
from karyon.bench.process import run_measured
from karyon.cohort.shard import STAGE_VERSION
from karyon.errors import KaryonError


def test_a_process_is_charged_what_it_and_its_children_use(tmp_path: Path) -> None:
    spend = "import time; held = bytearray(80_000_000)\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spend!r}]); print('done')"
    cost = run_measured([sys.executable, "-c", code], tmp_path)
    assert 0.5 <= cost.seconds < 1.5
    assert 80 < cost.peak_mb < 120  # not this process, which is larger
    assert cost.output == "done\n"


def test_a_command_that_fails_is_told_with_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(KaryonError, match=r"failed in .*\nno such thing"):
        run_measured([sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path)


def test_a_cohort_pretended_to_be_finished_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    work = synthetic_cohort(tmp_path, 3)
    new = jobs_by_rule(run_measured(DRY_RUN, work).output)
    assert new == {**dict.fromkeys([*STAGE_VERSION, "summary", "report", "verdict", "all"], 1), "total": 10}
    pretend_finished(work)
    assert jobs_by_rule(run_measured(DRY_RUN, work).output) == {}


@pytest.mark.slow
def test_every_goal_is_stated_and_small_cohorts_meet_it(tmp_path: Path) -> None:
    lines = {line.name: line for line in measure_dag(tmp_path, 40)}
    assert len(lines) == 5 + len(STAGE_VERSION)
    assert lines["dag.new_slides"].value == 1  # 40 slides are one shard
    assert not [line for line in lines.values() if line.goal == "" or not line.met]
