"""How many workers a rank gets by itself, and which CPUs it may count as its own."""

import math

import pytest

from mivolo_lite.distributed.cpus import cpu_quota, shared_cpus
from mivolo_lite.training.auto_workers import auto_workers


@pytest.mark.parametrize(
    "local, expected",
    [
        ([{0, 1, 2, 3}], 4),
        ([{0, 1}, {2, 3}], 2),  # srun binds each rank to its own
        ([set(range(12))] * 8, 1.5),  # accelerate lets all ranks run on all
        ([{0, 1, 2}, {2, 3}], 2.5),
    ],
)
def test_a_cpu_that_ranks_share_counts_in_parts(local, expected):
    assert shared_cpus(local[0], local) == pytest.approx(expected)


def test_a_containers_limit_is_the_lowest_of_its_groups(tmp_path):
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("350000 100000\n")
    (inner / "cpu.max").write_text("800000 100000\n")
    assert cpu_quota([inner, inner.parent, tmp_path]) == 3.5
    assert cpu_quota([tmp_path, tmp_path / "none"]) == math.inf


@pytest.mark.parametrize(
    "cpus, on_cpu, memory, expected",
    [
        (12, False, math.inf, 11),
        (2, False, math.inf, 1),
        (0.5, False, math.inf, 1),
        (64, False, math.inf, 16),
        (12, True, math.inf, 1),
        (12, False, 0, 1),
        (12, False, 22 * 100 * 2 * 3 * 224**2, 5),  # of 22 batches five workers take 21
    ],
)
def test_one_cpu_stays_for_the_rank_and_batches_fit_into_shared_memory(cpus, on_cpu, memory, expected):
    assert auto_workers(cpus, on_cpu, memory, 100, 224) == expected
