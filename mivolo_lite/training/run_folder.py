"""The folder of a run: its configuration, its log, its checkpoints, and the best weights."""

import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any, TextIO

from mivolo_lite.card import MODEL_FILE
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import explain_write_errors, read_file, sync_files, write_text
from mivolo_lite.lineage import RUN_FILE
from mivolo_lite.system import try_lock
from mivolo_lite.training.json_lines import LOG_FILE, read_records, to_line

_LOCK_PATIENCE = 10.0
"""Seconds to wait for a job that was just killed to release its lock."""
_REMEDY = "the checkpoints are whole; make room, then --resume auto"
_RUN_FILES = {
    RUN_FILE, LOG_FILE, "broken.jsonl", "lock", "seen", "checkpoints", "best", "best.partial", "best.old",
    "tensorboard", "trackers.json", "wandb", "mlruns", "find-lr",
    "profile", f"{RUN_FILE}.partial", f"{LOG_FILE}.partial", "metrics.partial", "seen.partial",
}  # fmt: skip
"""Names of the files that a run writes into its folder."""


class RunFolder:
    """Paths and small files of a run.

    Layout: ``config.yaml`` (resolved), ``metrics.jsonl``, ``broken.jsonl``, ``lock``, ``checkpoints/``, ``best/``.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / RUN_FILE
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self._old_best = self.path / "best.old"
        self.metrics = self.path / LOG_FILE
        self.broken = self.path / "broken.jsonl"
        self.lock = self.path / "lock"
        self.probe = self.path / "seen"
        self.profile = self.path / "profile"
        self._locked: TextIO | None = None

    def begin(self, resume: str) -> None:
        """Create the folder, on one rank only, and lock out other jobs while this process lives.

        Raises:
            UserError: it holds a run and ``resume`` is not ``auto``, or another job is using it.
        """
        if resume != "auto" and self._is_occupied():
            raise UserError(
                f"--run {self.path}: holds a run already; add --resume auto to resume it, or choose another folder"
            )
        with explain_write_errors(self.path, "choose another --run, or repair the disk"):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_folder()
            if resume != "auto":
                self._clear_failed_start()
            self.checkpoints.mkdir(exist_ok=True)
            if self._old_best.exists() and not self.best.exists():  # killed between two renames
                os.rename(self._old_best, self.best)

    def save_config(self, config_yaml: str) -> None:
        """Write the configuration of a run that is about to train. A run that cannot resume keeps the earlier one."""
        with explain_write_errors(self.path, "choose another --run, or repair the disk"):
            write_text(self.config, config_yaml)

    def _is_occupied(self) -> bool:
        """Whether the folder holds a run's checkpoint or best weights, or other files than a run's."""
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise UserError(f"--run {self.path}: is a file; choose a folder")
        foreign = [path for path in self.path.iterdir() if path.name not in _RUN_FILES]
        saved = [path for path in self.checkpoints.glob("*") if path.suffix != ".partial"]
        return bool(foreign or saved or self.best.exists() or self._old_best.exists())

    def _clear_failed_start(self) -> None:
        """Remove files of a run that never saved: its log, also in a tracker, would be taken for this run's."""
        for path in (self.metrics, self.broken, self.path / "trackers.json"):
            path.unlink(missing_ok=True)
        for folder in (self.path / "tensorboard", self.profile, self.path / "best.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    def save_best(self, estimator: Estimator, weights: dict) -> None:
        """Replace the best weights by renaming, so that there is always a complete set."""
        partial = self.path / "best.partial"
        for leftover in (partial, self._old_best):
            shutil.rmtree(leftover, ignore_errors=True)
        with explain_write_errors(self.path, _REMEDY):
            estimator.save(partial, weights)
            sync_files(partial)
            if self.best.exists():
                os.rename(self.best, self._old_best)
            os.rename(partial, self.best)
        shutil.rmtree(self._old_best, ignore_errors=True)

    def has_best(self) -> bool:
        """Whether there are best weights."""
        return (self.best / MODEL_FILE).is_file()

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        self._append(self.metrics, record)

    def begin_log(self, step: int, total_steps: int) -> tuple[float, float]:
        """Log that the run starts or resumes, after ``cut_log``.

        Returns:
            The time of its first start in seconds since 1970, and the seconds spent in the steps of the remaining log.
        """
        self.log({"kind": "start", "step": step, "total_steps": total_steps, "time": time.time()})
        records = list(read_records(self.metrics))
        starts = [record["time"] for record in records if record.get("kind") == "start"]
        return min(starts), max((record.get("step_seconds") or 0.0 for record in records), default=0.0)

    def log_broken(self, step: int, image: str) -> None:
        """Append an undecodable image, "key: reason", to ``broken.jsonl``."""
        self._append(self.broken, {"step": step, "image": image})

    def broken_images(self) -> set[str]:
        """The undecodable images logged so far."""
        return {record["image"] for record in read_records(self.broken) if isinstance(record.get("image"), str)}

    def cut_log(self, step: int, evaluated: bool = True) -> int:
        """Drop the log's lines of steps that a resumed run will repeat, and lines that are no records. Starts stay.

        Args:
            step: the last one whose lines stay.
            evaluated: whether the evaluation after that step stays as well.

        Returns:
            The number of lines that were no records, without one that a killed job left unfinished.
        """
        if not self.metrics.exists():
            return 0
        records = list(read_records(self.metrics))
        lines = read_file(self.metrics).splitlines(keepends=True)
        unfinished = bool(lines) and not lines[-1].endswith(b"\n")
        kept = (record for record in records if _is_kept(record, step, evaluated))
        write_text(self.metrics, "".join(map(to_line, kept)))
        return max(0, len(lines) - len(records) - unfinished)

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        with explain_write_errors(self.path, _REMEDY):
            with open(path, "a", encoding="utf-8") as file:
                file.write(to_line(record))

    def _lock_folder(self) -> None:
        """Lock a file until this process ends for any reason: a stale lock never remains."""
        locked = self._locked = open(self.lock, "a+", encoding="utf-8")
        end = time.monotonic() + _LOCK_PATIENCE
        while not try_lock(locked):
            if time.monotonic() > end:
                locked.seek(0)
                raise UserError(
                    f"--run {self.path}: another job is at work in it ({locked.read().strip()}); "
                    "stop it, or choose another folder"
                )
            time.sleep(0.5)
        locked.truncate(0)
        locked.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        locked.flush()


def _is_kept(record: dict[str, Any], step: int, evaluated: bool) -> bool:
    """Whether a line of the log stays if a run resumes after this step."""
    kind, logged = record.get("kind"), record.get("step")
    if not isinstance(logged, int):
        return False
    return kind == "start" or logged < step or (logged == step and (evaluated or kind != "val"))
