"""The number of CPUs of each rank, whether its own or shared by the ranks of its machine."""

import math
import socket
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from accelerate.utils import gather_object

from mivolo_lite.distributed.affinity import process_cpus

_CGROUPS = Path("/sys/fs/cgroup")


def rank_cpus() -> float:
    """CPUs of this rank. A CPU that several ranks of the machine may use counts as a fraction.

    All ranks must call it. The number of CPUs alone is not enough: srun may bind each rank to its own, while accelerate
    lets all ranks of a machine use all.
    """
    own = (socket.gethostname(), process_cpus())
    ranks = gather_object([own])
    local = [cpus for host, cpus in ranks if host == own[0]]
    return min(shared_cpus(own[1], local), cpu_quota(_own_cgroups()) / len(local))


def shared_cpus(process: Set[int], local: Sequence[Set[int]]) -> float:
    """CPUs of a process among all of its machine, itself included: one that three of them may use counts 1/3."""
    return sum(1 / sum(cpu in cpus for cpus in local) for cpu in process)


def cpu_quota(cgroups: Iterable[Path]) -> float:
    """CPUs of a container, as set by docker's ``--cpus`` or Kubernetes' limits; infinite without a limit."""
    quotas = [math.inf]
    for cgroup in cgroups:
        try:
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            quotas.append(int(quota) / int(period))
    return min(quotas)


def _own_cgroups() -> list[Path]:
    """The folders of this process's control group (version 2) and of its parents."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    cgroup = _CGROUPS / path
    return [cgroup, *(parent for parent in cgroup.parents if parent.is_relative_to(_CGROUPS))]
