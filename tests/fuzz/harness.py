"""Runs each case in a process of its own, forked from one that has imported everything, and holds it to the law.

The law: success or one line, never a traceback; within a minute and 1.5 GB; nothing is written but the command's
output; no code of the input is run.
"""

import faulthandler
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from mivolo_lite.cli import main
from tests.forked import forked_process
from tests.fuzz.cases import KINDS
from tests.fuzz.mutations import CANARY

SECONDS = 60
GIGABYTES = 1.5
_SPACE = 6e9
"""Address space of a case, of which torch's libraries and threads reserve much that they never use."""

_RUNS_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
_UNPICKLED = ("os", "posix", "subprocess", "builtins", "runpy", "sys")


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        kind, seed: which case it was.
        fault: what broke the law, empty where nothing did.
        code: exit code.
        line: what was said last.
        seconds, gigabytes: that it took.
    """

    kind: str
    seed: int
    fault: str = ""
    code: int | None = None
    line: str = ""
    seconds: float = 0.0
    gigabytes: float = 0.0


def run_cases(
    cases: Iterable[tuple[str, int]], corpus: Path, at_once: int = 1, command: Callable = main, seconds: float = SECONDS
) -> Iterator[Outcome]:
    """The outcomes of (kind, seed), in their order.

    Args:
        cases: which.
        corpus: what ``make_corpus`` made.
        at_once: how many run at the same time.
        command: what a case's command line is given to.
        seconds: after which a case, with all its processes, is killed.
    """
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda case: _run_case(*case, corpus, command, seconds), cases)


def _run_case(kind: str, seed: int, corpus: Path, command: Callable, seconds: float) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        answers, theirs = multiprocessing.Pipe(duplex=False)
        process = forked_process(_work, (kind, seed, corpus, folder, command, theirs))
        start = time.monotonic()
        process.start()
        theirs.close()
        outcome = _await(process, answers, Outcome(kind, seed), seconds)
        outcome.seconds = time.monotonic() - start
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(process, answers, outcome: Outcome, seconds: float) -> Outcome:
    try:
        if answers.poll(seconds):
            outcome = Outcome(**answers.recv())
        else:
            outcome.fault = f"hangs: over {seconds:g} s"
    except EOFError:
        process.join(seconds)
        outcome.fault = f"dies: exit code {process.exitcode}"
    finally:
        _kill_group(process.pid)
        process.join()
    return outcome


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _work(kind: str, seed: int, corpus: Path, folder: Path, command: Callable, answers) -> None:
    """In the case's own process: make the case, run it, report."""
    os.setsid()
    faulthandler.disable()
    outcome = Outcome(kind, seed)
    output = open(folder / "output", "w+", buffering=1, errors="backslashreplace")  # noqa: SIM115
    for name, where in (("TMPDIR", "tmp"), ("HOME", "home"), ("XDG_CACHE_HOME", "home")):
        (folder / where).mkdir(exist_ok=True)
        os.environ[name] = str(folder / where)
    tempfile.tempdir = None
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout = sys.stderr = output
    try:
        _run(outcome, corpus, folder / "case", command, output)
    except BaseException as error:
        outcome.fault = f"harness: {error!r}"
        traceback.print_exc(file=output)
    answers.send(asdict(outcome))
    os._exit(0)


def _run(outcome: Outcome, corpus: Path, folder: Path, command: Callable, output) -> None:
    folder.mkdir()
    case = KINDS[outcome.kind](corpus, folder, Random(f"{outcome.kind} {outcome.seed}"))
    os.chdir(folder)
    before = snapshot(folder, case.writes)
    watch = Watch()
    resource.setrlimit(resource.RLIMIT_AS, (int(_SPACE), int(_SPACE)))
    try:
        command(case.argv)
        outcome.code = 0
    except SystemExit as stopped:
        outcome.code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException as error:
        outcome.fault = f"traceback: {_place_of(error)}"
    watch.over = True
    output.flush()
    output.seek(0)
    text = output.read()
    outcome.line = next((line[:300] for line in reversed(text.splitlines()) if line.strip()), "")
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    outcome.gigabytes = largest * 1024 / 1e9
    outcome.fault = outcome.fault or _fault(outcome, watch, text, before, snapshot(folder, case.writes))


def _fault(outcome: Outcome, watch: "Watch", text: str, before: dict, after: dict) -> str:
    if watch.seen or os.path.exists(CANARY):
        return f"runs code: {watch.seen[:1]}"
    if "Traceback (most recent call last)" in text:
        return "traceback printed"
    if outcome.code not in (0, 2):
        return f"exit code {outcome.code}: {outcome.line}"
    if outcome.code == 2 and "mivolo-lite: " not in outcome.line:
        return f"exit code 2 without its line: {outcome.line}"
    if outcome.gigabytes > GIGABYTES:
        return f"memory: {outcome.gigabytes:.1f} GB"
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return f"writes elsewhere: {changed[:3]}" if changed else ""


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "mivolo_lite" in frame.filename and "site-packages" not in frame.filename]
    frame = (own or frames)[-1]
    message = " ".join(str(error).split())[:160]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno} {frame.name}: {message}"


def snapshot(folder: Path, ignored: Iterable[str]) -> dict[str, str]:
    """What every file below a folder's parent holds, but for those that may be written."""
    found = {}
    for path in folder.parent.rglob("*"):
        parts = path.relative_to(folder.parent).parts
        if parts[0] in ("output", "tmp", "home") or len(parts) > 1 and parts[1] in ignored:
            continue
        found["/".join(parts)] = hashlib.sha1(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


class Watch:
    """Notes when code of the input is run: a command with the canary in it, or a hostile name in a pickle."""

    def __init__(self):
        self.seen: list[str] = []
        self.over = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.over:
            return
        hostile = event in _RUNS_CODE and CANARY in repr(arguments)
        hostile |= event == "pickle.find_class" and arguments[0] in _UNPICKLED
        hostile |= event == "import" and arguments[0] == "antigravity"
        if hostile:
            self.seen.append(f"{event} {repr(arguments)[:100]}")
