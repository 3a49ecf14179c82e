"""The folder of a run: its configuration, its log, its checkpoints, and the best weights."""

import json
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError


class RunFolder:
    """Paths and small files of a run.

    Layout: ``config.yaml`` (resolved), ``metrics.jsonl``, ``broken.jsonl``, ``checkpoints/``, ``best/``.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.metrics = self.path / "metrics.jsonl"
        self.broken = self.path / "broken.jsonl"

    def begin(self, resume: str, config_yaml: str) -> None:
        """Make the folder, on one rank alone.

        Raises:
            UserError: it holds a run already and ``resume`` is not ``auto``, or ``resume`` is nothing known.
        """
        if resume not in ("auto", "no"):
            raise UserError(f"--resume {resume}: give `auto` or `no`")
        if resume == "no" and self.path.exists() and any(self.path.iterdir()):
            raise UserError(
                f"--run {self.path}: holds a run already; add --resume auto to go on, or choose another folder"
            )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        (self.path / "config.yaml").write_text(config_yaml)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with open(self.metrics, "a") as file:
            file.write(json.dumps(record) + "\n")

    def log_broken(self, step: int, picture: str) -> None:
        """Append an undecodable picture, "key: reason", to ``broken.jsonl``."""
        with open(self.broken, "a") as file:
            file.write(json.dumps({"step": step, "picture": picture}) + "\n")

    def cut_log(self, step: int) -> None:
        """Drop lines of steps that a resumed run will do again."""
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if json.loads(line)["step"] <= step]
            self.metrics.write_text("".join(line + "\n" for line in lines))
