"""What ends with what: a launcher, its training, a rank's workers."""

import os
import platform
import signal
import subprocess
import sys
import time

import psutil
import pytest

LAUNCHER = """
import os, subprocess, sys
environment = os.environ | {"OMP_NUM_THREADS": "1"}
process = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment)
print(process.pid, flush=True)
sys.exit(process.wait())
"""
THREADS = """
import os
from mivolo_lite.distributed.affinity import spread_over_cpus
spread_over_cpus()
print(os.environ["OMP_NUM_THREADS"], len(os.sched_getaffinity(0)), os.environ.get("OMP_PROC_BIND"), flush=True)
"""
LISTENS = """
import os, time
from mivolo_lite.distributed.preemption import listen, preempted
listen()
print("listens", flush=True)
end = time.monotonic() + float(os.environ["SECONDS"])
while time.monotonic() < end and not preempted():
    time.sleep(0.05)
print("preempted" if preempted() else "not preempted", flush=True)
"""
FREED = """
import resource
from mivolo_lite.processes import keep_freed_memory
keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (100 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
WORKER = """
import multiprocessing, time
from mivolo_lite.processes import live_as_worker
def work(began):
    live_as_worker()
    began.set()
    time.sleep(60)
if __name__ == "__main__":
    began = multiprocessing.get_context("fork").Event()
    worker = multiprocessing.get_context("fork").Process(target=work, args=[began])
    worker.start()
    began.wait()
    print(worker.pid, flush=True)
    worker.join()
"""


@pytest.fixture
def launched(tmp_path):
    """Runs Python code under a program of the given name, as a launcher would."""
    processes = []

    def launch(name, code, *words, **environment):
        script = tmp_path / name
        script.write_text(LAUNCHER)
        clean = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | environment
        command = [sys.executable, str(script), code, *words]
        processes.append(subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, text=True))
        return processes[-1], int(processes[-1].stdout.readline())

    yield launch
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="with a GPU the launcher's placement stays")
def test_one_thread_that_a_launcher_guessed_is_not_the_users_choice(launched):
    threads, cpus, bound = launched("accelerate", THREADS)[0].stdout.read().split()
    assert threads == cpus and bound == "true"
    for chosen in ({"OMP_NUM_THREADS": "1"}, {}):
        words = [] if chosen else ["--num_cpu_threads_per_process=1"]
        script = "accelerate" if chosen else "shell"
        assert launched(script, THREADS, *words, **chosen)[0].stdout.read().split()[0] == "1"


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="with a GPU the launcher's placement stays")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU cannot be shared out")
def test_runs_with_fewer_threads_than_cpus_are_not_bound_to_the_same_ones(launched):
    assert launched("shell", THREADS, OMP_NUM_THREADS="1")[0].stdout.read().split()[2] == "None"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, heard, seconds",
    [("accelerate", "preempted", 60), ("torchrun", "preempted", 60), ("shell", "not preempted", 2)],
)
def test_the_end_of_a_launcher_is_a_warning_and_that_of_a_shell_is_not(launched, name, heard, seconds):
    launcher, _ = launched(name, LISTENS, SECONDS=f"{seconds}")
    assert launcher.stdout.readline() == "listens\n"
    launcher.send_signal(signal.SIGKILL)
    assert launcher.stdout.readline() == f"{heard}\n"


@pytest.mark.slow
def test_a_worker_ends_with_a_process_that_was_killed():
    process = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(process.stdout.readline()))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        worker.send_signal(number)
    time.sleep(0.2)
    assert worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    process.kill()
    process.communicate()
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_a_freed_block_is_kept_for_the_next_one_unless_the_user_configured_malloc():
    def faults(**environment):
        return int(subprocess.check_output([sys.executable, "-c", FREED], env=os.environ | environment))

    assert faults() < 10
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 40  # 25,600 pages of 4 KiB, 50 of 2 MiB
    assert faults(GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072") > 40
