"""What many tests share: where they run, and small data sets."""

import os

import pytest
import torch

from mivolo_lite.data.pack import pack
from mivolo_lite.data.sources.people import PeopleSource


def pytest_configure(config):
    """One CPU for each test process: the threads of several processes on one CPU wait for each other."""
    torch.set_num_threads(1)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[int(worker.removeprefix("gw")) % len(allowed)]})


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """The folder of 80 drawn people, packed into ``train`` and ``val``."""
    folder = tmp_path_factory.mktemp("data") / "people"
    pack(PeopleSource(count=80), folder, {"train": 0.75, "val": 0.25})
    return folder
