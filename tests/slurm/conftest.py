"""A cluster, and a folder to submit from."""

import os
import sys
from pathlib import Path

import pytest

from mivolo_lite.package_files import copy_launch_files
from tests.slurm.cluster import Cluster, missing_programs

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes. Where SLURM is not installed, tests with it are skipped, but fail in CI."""
    missing = missing_programs()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"no {', '.join(missing)}; apt-get install slurm-wlm munge")
    assert not missing, "SLURM must be installed in CI"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "OMP_PROC_BIND": "false",  # both nodes are this machine, and would bind to the same CPU
    }
    with Cluster(tmp_path_factory.mktemp("slurm"), environment) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def submit_folder(tmp_path_factory):
    """A folder to submit from, which gets the logs: no clone, but the launch files that the package brings."""
    folder = tmp_path_factory.mktemp("submit_folder")
    copy_launch_files(folder / "launch")
    return folder
