"""A real SLURM of two nodes on this machine's loopback, with files, ports and an authentication of its own."""

import getpass
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.ports import free_ports
from tests.waiting import wait_until

PATH = f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
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
SchedulerParameters=batch_sched_delay=0,sched_interval=2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What a cluster needs and is not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """Runs within ``with``; then every daemon and every process of a job is ended.

    Args:
        folder: for its files.
        environment: of the daemons and of what is submitted.
    """

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = environment | {"SLURM_CONF": str(self.configuration), "PATH": environment["PATH"] + PATH}
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        for daemon in self.daemons:
            daemon.wait(timeout=60)

    def run(self, *command: str, **more) -> str:
        """What a command prints. Fails where it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **more,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
        return done.stdout.strip()

    def node(self, name: str) -> subprocess.Popen:
        """A node's daemon."""
        return next(daemon for daemon in self.daemons if daemon.args[-1] == name)

    def _start_daemons(self) -> None:
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.configuration.write_text(
            CONFIGURATION.format(
                folder=self.folder, user=getpass.getuser(), ports=free_ports(3), first_job=random.randint(1, 50_000)
            )
        )
        files = {name: self.folder / f"munge.{name.split('-')[0]}" for name in ("pid-file", "log-file", "seed-file")}
        # --force: its socket's folder may be closed to other users, who need none here.
        self._start(
            "munged",
            *("--foreground", "--force", f"--key-file={key}", f"--socket={self.folder / 'munge.socket'}"),
            *(f"--{name}={path}" for name, path in files.items()),
        )
        wait_until((self.folder / "munge.socket").exists, 30, lambda: "munged listens")
        self._start("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node)
        wait_until(self._idle, 60, lambda: "two nodes are idle")

    def _start(self, *command: str) -> None:
        everywhere = range(os.cpu_count())  # a test process may be bound to one CPU; jobs are to use all
        with open(self.folder / f"{'-'.join([command[0], *command[3:4]])[:20].replace('/', '_')}.out", "w") as log:
            self.daemons.append(
                subprocess.Popen(
                    command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: os.sched_setaffinity(0, everywhere),
                )
            )

    def _idle(self) -> bool:
        command = ["sinfo", "--noheader", "--format=%D %t"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout.strip() == "2 idle"

    def _processes(self) -> list[int]:
        """The daemons and all that came of them, jobs included: they alone know of this configuration."""
        mark = f"SLURM_CONF={self.configuration}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                pass  # ended meanwhile
        return found


class Job:
    """A job that was submitted."""

    def __init__(self, cluster: Cluster, number: str):
        self.cluster, self.number = cluster, number

    def field(self, name: str) -> str:
        """One of the fields that ``scontrol show job`` knows."""
        shown = self.cluster.run("scontrol", "--oneliner", "show", "job", self.number)
        return re.search(rf"(?:^|\s){name}=(\S*)", shown)[1]

    def seconds(self) -> int:
        """Since it started."""
        hours, minutes, seconds = map(int, self.field("RunTime").split(":"))
        return 3600 * hours + 60 * minutes + seconds

    def wait(self, state: str, seconds: float, starts: int | None = None) -> None:
        """Until the job has a state; ``starts`` counts those before, and tells a requeued job from a new one."""

        def there() -> bool:
            return self.field("JobState") == state and starts in (None, int(self.field("Restarts")))

        wait_until(there, seconds, lambda: f"{state}: {self.cluster.run('scontrol', 'show', 'job', self.number)}")

    def go_on(self) -> None:
        """Start a requeued job soon; SLURM would let it wait for two minutes."""
        self.wait("PENDING", 120)
        time.sleep(2)  # a node refuses what was allowed in the second in which the job ended there
        self.update(StartTime="now")

    def update(self, **fields: str) -> None:
        self.cluster.run("scontrol", "update", f"JobId={self.number}", *(f"{k}={v}" for k, v in fields.items()))

    def signal(self, name: str) -> None:
        """As SLURM warns: to the ranks, and not to the batch script."""
        self.cluster.run("scancel", f"--signal={name}", self.number)


def parent(process: int) -> int:
    """The process that started one."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def descendants(process: int) -> list[int]:
    """What a process started, and what that started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]
