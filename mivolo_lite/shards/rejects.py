"""Inputs that a command cannot use: listed with their reasons, up to a stated share."""

import json
from pathlib import Path

from mivolo_lite.errors import UserError

REJECTED_FILE = "rejected.jsonl"


def check_reject_rate(rejected: list[dict], usable: int, limit: float, folder: Path) -> None:
    """Raise UserError, with an example, where nothing was kept or more than the share ``limit`` was rejected."""
    total = len(rejected) + usable
    example = f"; the first is {rejected[0]['image']}: {rejected[0]['reason']}" if rejected else ""
    if usable == 0:
        raise UserError(f"{folder}: not one usable image among {total}{example}")
    if len(rejected) > limit * total:
        raise UserError(
            f"{folder}: {len(rejected)} of {total} rejected, over --max_reject_rate {limit:g}: "
            f"mend the input, or raise the limit, and {REJECTED_FILE} lists them all{example}"
        )


def write_rejected(path: Path, rejected: list[dict]) -> None:
    """One JSON object a line, with ``image`` and ``reason``."""
    path.write_text("".join(json.dumps(reject) + "\n" for reject in rejected), encoding="utf-8")
