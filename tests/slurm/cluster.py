"""A real SLURM of two nodes on this machine's loopback, with files and ports of its own."""

import getpass
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE", "OUT_OF_MEMORY")

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
FirstJobId={first_job}
KillWait=5
UnkillableStepTimeout=60
SchedulerParameters=batch_sched_delay=0,sched_interval=2
NodeName=n[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first_port}-{second_port}] CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What is not installed of what a cluster needs."""
    return [name for name in PROGRAMS if _program(name) is None]


class Cluster:
    """Started by ``with``; left with every daemon and every job's process ended.

    Args:
        folder: for its files. munged's socket lies in it, so its path must be shorter than 90 characters.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: list[subprocess.Popen] = []
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}",
        }

    def __enter__(self) -> "Cluster":
        try:
            self._configure()
            self._start("munged", "--foreground", *self._munge_files())
            wait_for((self.folder / "munge.socket").exists, "munged's socket")
            self._start("slurmctld", "-D")
            for node in ("n1", "n2"):
                self._start("slurmd", "-D", "-N", node)
            wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t").strip() == "2 idle", "two idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if len(self.daemons) > 1:
            subprocess.run(["scancel", "--state=PENDING"], env=self.environment, timeout=30, capture_output=True)
            subprocess.run(["scancel", "--signal=KILL", "--full", "--me"], env=self.environment, timeout=30)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(timeout=60)

    def run(self, *command: str, **more) -> str:
        """What a command of SLURM prints; "" where it fails."""
        return subprocess.run(
            command, env=self.environment, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
        ).stdout
