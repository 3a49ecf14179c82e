"""Reads and writes JSON lines. The last may be unfinished, after a killed job or on a full disk."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mivolo_lite.files import read_file

LOG_FILE = "metrics.jsonl"
"""The log in a run's folder."""


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that hold objects; none if there is no file."""
    if not path.exists():
        return
    for line in read_file(path).splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def to_line(record: dict[str, Any]) -> str:
    """The record as a line, with null for NaN and infinity."""
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
