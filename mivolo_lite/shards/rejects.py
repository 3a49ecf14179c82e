"""Inputs that a command cannot use. They are listed with their reasons, up to a limit."""

import json
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.paths import as_unicode
from mivolo_lite.wording import count_of

REJECTED_FILE = "rejected.jsonl"


class Rejected(Exception):
    """An image that cannot be used, with the reason. It is written to ``rejected.jsonl`` and counted."""


def check_reject_rate(rejected: list[dict], usable: int, limit: float, folder: Path) -> None:
    """Raise UserError, with an example, if no input is usable or more than the share ``limit`` was rejected."""
    total = len(rejected) + usable
    example = f"; the first is {rejected[0]['image']}: {rejected[0]['reason']}" if rejected else ""
    if usable == 0:
        raise UserError(f"{folder}: none of {count_of(total, 'image')} is usable{example}")
    if len(rejected) > limit * total:
        raise UserError(
            f"{folder}: {len(rejected)} of {total} rejected, over --max_reject_rate {limit:g}: "
            f"fix the input, or raise the limit, and {REJECTED_FILE} lists them all{example}"
        )


def write_rejected(path: Path, rejected: list[dict]) -> None:
    """One JSON object a line, with ``image`` and ``reason``."""
    path.write_text("".join(map(line_of, rejected)), encoding="utf-8")


def line_of(reject: dict[str, str]) -> str:
    """The line of a rejected input; its texts are ``as_unicode``."""
    return json.dumps({key: as_unicode(text) for key, text in reject.items()}) + "\n"
