"""The folder of a run: its configuration, its log, its checkpoints, and the best weights."""

import errno
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator

_LOCK_PATIENCE = 10.0
"""Seconds in which a job that was killed a moment ago has time to let go of its folder."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """Paths and small files of a run.

    Layout: ``config.yaml`` (resolved), ``metrics.jsonl``, ``broken.jsonl``, ``lock``, ``checkpoints/``, ``best/``.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.metrics = self.path / "metrics.jsonl"
        self.broken = self.path / "broken.jsonl"
        self.lock = self.path / "lock"
        self._locked = None

    def begin(self, resume: str, config_yaml: str) -> None:
        """Make the folder, on one rank alone, and keep other jobs out of it while this process lives.

        Raises:
            UserError: it holds a run already and ``resume`` is not ``auto``, or ``resume`` is nothing known, or another
                job is at work in it.
        """
        if resume not in ("auto", "no"):
            raise UserError(f"--resume {resume}: give `auto` or `no`")
        if resume == "no" and self.path.exists() and set(self.path.iterdir()) - {self.lock}:
            raise UserError(
                f"--run {self.path}: holds a run already; add --resume auto to go on, or choose another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._keep_others_out()
        self.checkpoints.mkdir(exist_ok=True)
        if self._old_best.exists() and not self.best.exists():  # killed between two renames
            os.rename(self._old_best, self.best)
        (self.path / "config.yaml").write_text(config_yaml)

    def save_best(self, estimator: Estimator, weights: dict) -> None:
        """Put the best weights where inference finds them, by renaming, so that there is always a whole set."""
        partial = self.path / "best.partial"
        for leftover in (partial, self._old_best):
            shutil.rmtree(leftover, ignore_errors=True)
        with explain_full_disk(self.path, "the checkpoints are whole; make room, then --resume auto"):
            estimator.save(partial, weights)
            sync_files(partial)
        if self.best.exists():
            os.rename(self.best, self._old_best)
        os.rename(partial, self.best)
        shutil.rmtree(self._old_best, ignore_errors=True)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        self._append(self.metrics, record)

    def log_broken(self, step: int, picture: str) -> None:
        """Append an undecodable picture, "key: reason", to ``broken.jsonl``."""
        self._append(self.broken, {"step": step, "picture": picture})

    def broken_pictures(self) -> set[str]:
        """Those written down so far."""
        return {record["picture"] for record in _whole_records(self.broken)} if self.broken.exists() else set()

    def cut_log(self, step: int) -> None:
        """Drop lines of steps that a resumed run will do again, and one that a killed job left unfinished."""
        if self.metrics.exists():
            records = [record for record in _whole_records(self.metrics) if record["step"] <= step]
            kept = self.metrics.with_suffix(".partial")
            kept.write_text("".join(json.dumps(record) + "\n" for record in records))
            os.replace(kept, self.metrics)

    @property
    def _old_best(self) -> Path:
        return self.path / "best.old"

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        with explain_full_disk(self.path, "the checkpoints are whole; make room, then --resume auto"):
            with open(path, "a") as file:
                file.write(json.dumps(record) + "\n")

    def _keep_others_out(self) -> None:
        """Lock a file until this process ends, however it ends.

        A record lock (``lockf``) belongs to the process: the kernel, or the NFS server, frees it when the process dies,
        so nothing stale is left to be judged by its age. ``flock`` would be inherited by the loader's workers, which
        outlive a killed process by some seconds.
        """
        self._locked = open(self.lock, "a+")
        end = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.lockf(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return  # a file system without locks
                if time.monotonic() > end:
                    self._locked.seek(0)
                    raise UserError(
                        f"--run {self.path}: another job is at work in it ({self._locked.read().strip()}); "
                        "stop it, or choose another folder"
                    ) from None
                time.sleep(0.5)
        self._locked.truncate(0)
        self._locked.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._locked.flush()


@contextmanager
def explain_full_disk(path: Path, remedy: str) -> Iterator[None]:
    """Say in one line that there is no room to write. Raises UserError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors has no error numbers, only their text.
        full = [
            number for number in _FULL if getattr(error, "errno", None) == number or f"os error {number})" in str(error)
        ]
        if not full:
            raise
        raise UserError(f"{path}: {os.strerror(full[0])}; {remedy}") from None


def sync_files(folder: Path, deep: bool = True) -> None:
    """Bring a folder and its files to the disk, so that a rename never names what a crash of the machine would lose."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _whole_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSON lines file, without those that a killed job or a full disk left unfinished."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
