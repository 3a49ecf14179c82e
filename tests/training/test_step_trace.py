"""The trace of some steps."""

import gzip
import json
from types import SimpleNamespace

import pytest
import torch

from mivolo_lite.training.step_trace import SKIPPED, WARM_UP, StepTrace


@pytest.fixture
def logger():
    lines = []
    return SimpleNamespace(active=True, log=lines.append, lines=lines)


def take_steps(trace, count):
    for _ in range(count):
        torch.ones(4) @ torch.ones(4)
        trace.step()


def test_it_holds_the_steps_asked_for_and_no_others(tmp_path, logger):
    trace = StepTrace(2, tmp_path / "profile", logger)
    take_steps(trace, SKIPPED + WARM_UP + 2)
    assert len(logger.lines) == 1 and str(tmp_path / "profile" / "trace.json.gz") in logger.lines[0]
    take_steps(trace, 3)
    trace.close()
    events = json.loads(gzip.open(tmp_path / "profile" / "trace.json.gz").read())["traceEvents"]
    assert sum(event.get("name") == "aten::dot" for event in events) == 2 and len(logger.lines) == 1


def test_a_run_that_ends_before_says_so(tmp_path, logger):
    trace = StepTrace(2, tmp_path / "profile", logger)
    take_steps(trace, SKIPPED)
    trace.close()
    assert "the run ended after 3 steps" in logger.lines[0] and not (tmp_path / "profile").exists()


def test_other_ranks_and_runs_without_one_trace_nothing(tmp_path, logger):
    for steps, active in ((0, True), (2, False)):
        logger.active = active
        trace = StepTrace(steps, tmp_path / "profile", logger)
        take_steps(trace, 9)
        trace.close()
    assert logger.lines == [] and list(tmp_path.iterdir()) == []
