"""What many tests share: where they run, and small data sets."""

import gc
import os
from collections import Counter

import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # threads of several processes on one CPU wait for each other

settings.register_profile("no deadline", deadline=None)  # of 200 ms, which a busy machine exceeds
settings.load_profile("no deadline")


def pytest_configure(config):
    """One CPU for each test process. The one that deals the tests out imports no torch, so that they begin earlier."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[int(worker.removeprefix("gw")) % len(allowed)]})


def pytest_collectstart():
    """Before the first test is imported, in the processes that run tests."""
    gc.disable()  # nothing of what is imported is garbage, and looking for it is a tenth of the time
    import tests.timm_without_wandb  # noqa: F401


def pytest_make_parametrize_id(val):
    """Bytes and long texts by their length, so that a test's name is one line that a terminal can show."""
    if isinstance(val, bytes):
        return f"{len(val)} bytes"
    return f"{len(val)} characters" if isinstance(val, str) and len(val) > 100 else None


def pytest_collection_modifyitems(items):
    """The files with the most slow tests come first: one that is begun last would be waited for alone."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish():
    """What was imported stays: no garbage collection looks at it again, in this process or a forked one."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """The folder of 80 synthetic people, packed into ``train`` and ``val``."""
    from mivolo_lite.packing.pack import pack  # here: the process that deals the tests out would import it, too
    from mivolo_lite.packing.sources.people import PeopleSource

    folder = tmp_path_factory.mktemp("data") / "people"
    pack(PeopleSource(count=80), folder, {"train": 0.75, "val": 0.25})
    return folder


@pytest.fixture
def images(tmp_path):
    """A folder of 60 images named as UTKFace names them."""
    from tests.shards.tiny_shards import noise_jpeg  # here: it imports torch

    folder = tmp_path / "UTKFace"
    (folder / "deeper" / "still").mkdir(parents=True)
    for number in range(60):
        where = folder / ["", "deeper", "deeper/still"][number % 3]
        ending = ".jpg.chip.jpg" if number % 2 else ".jpg"
        (where / f"{number}_{number % 2}_{number % 5}_2017{number:013d}{ending}").write_bytes(noise_jpeg(number))
    return folder
