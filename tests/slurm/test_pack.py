"""pack.sbatch: an array job packs the same bytes as one command."""

import pytest

from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.people import PeopleSource
from tests.packing.test_pack import digests
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_an_array_job_packs_the_same_bytes_as_one_command(cluster, submit_folder, tmp_path):
    words = f"people --count 60 --split train=0.75,val=0.25 --samples-per-shard 20 --out {tmp_path / 'array'}"
    number = cluster.run(
        "sbatch", "--parsable", "--array=0-2", "launch/slurm/pack.sbatch", *words.split(), cwd=submit_folder
    )
    pack(PeopleSource(count=60), tmp_path / "single", {"train": 0.75, "val": 0.25}, samples_per_shard=20)
    wait_until(lambda: not cluster.run("squeue", "--noheader", "--jobs", number), 240, lambda: cluster.run("squeue"))
    logs = [path.read_text() for path in submit_folder.glob(f"slurm-{number}_*.out")]
    assert digests(tmp_path / "array") == digests(tmp_path / "single"), logs
    assert len(logs) == 3 and sum("train: 45 samples" in log for log in logs) <= 1
    assert {path.name for path in tmp_path.iterdir()} == {"array", "single"}
