"""People as rows: JSON lines, and a CSV with the same columns."""

import math
from collections.abc import Sequence
from typing import Any

from mivolo_lite.inference.people import Person, TaskAnswer
from mivolo_lite.inference.tracks import Track
from mivolo_lite.packing.crops import Box
from mivolo_lite.wording import count_of

NOBODY = "nobody found"
"""The flag of an image's only row if nobody is found in it."""

BOX_COLUMNS = {name: tuple(f"{name}_{edge}" for edge in ("x0", "y0", "x1", "y1")) for name in ("face", "body")}
"""The columns of a box in ``predictions.csv``."""

_BEFORE_TASKS = (
    "source", "frame", "seconds", "track", "track_age", *BOX_COLUMNS["face"], *BOX_COLUMNS["body"],
    "age", "age_lower", "age_upper", "age_spread", "gender", "gender_probability",
)  # fmt: skip
_AFTER_TASKS = "inputs", "detector_score", "flags"

TRACK_COLUMNS = (
    "source", "track", "first_frame", "last_frame", "frames", "age", "gender", "gender_probability", "flags",
)  # fmt: skip
"""The columns of ``tracks.csv``."""


def row_of(person: Person | None, source: str, **of_video: Any) -> dict[str, Any]:
    """A person as a JSON object; for None, the row of an image in which nobody is found.

    Args:
        person: with the estimates.
        source: the image or the video.
        of_video: ``frame``, ``seconds``, ``track`` and ``track_age``, the mean age over the track so far.
    """
    if person is None:
        return {"source": source, **of_video, "flags": [NOBODY]}
    lower, upper = person.age_interval or (None, None)
    return {
        "source": source,
        **of_video,
        "face": _rounded_box(person.face),
        "body": _rounded_box(person.body),
        "age": _rounded(person.age, 4),
        "age_lower": _rounded(lower, 4),
        "age_upper": _rounded(upper, 4),
        "age_spread": _rounded(person.age_spread, 4),
        "gender": person.gender,
        "gender_probability": _rounded(person.gender_probability, 6),
        "tasks": {name: _task(answer) for name, answer in person.tasks.items()},
        "inputs": list(person.inputs),
        "detector_score": _rounded(person.score, 4),
        "flags": list(person.flags),
    }


def track_row(track: Track, source: str) -> dict[str, Any]:
    """A completed track as a JSON object, with the flags of more than half of its frames."""
    gender, probability = track.gender
    return {
        "source": source,
        "track": track.number,
        "first_frame": track.first,
        "last_frame": track.last,
        "frames": track.frames,
        "age": _rounded(track.mean_age, 4),
        "gender": gender,
        "gender_probability": _rounded(probability, 6),
        "flags": [flag for flag, frames in track.flags.items() if 2 * frames > track.frames],
    }


def _task(answer: TaskAnswer) -> dict[str, Any]:
    value = answer.value
    return {"value": _rounded(value, 4) if isinstance(value, float) else value} | (
        {} if answer.probability is None else {"probability": round(answer.probability, 6)}
    )


def columns_of(tasks: Sequence[str]) -> list[str]:
    """The columns of ``predictions.csv``.

    Args:
        tasks: the names of those whose answers are columns; embeddings are only in the JSON.
    """
    return [*_BEFORE_TASKS, *(column for task in tasks for column in _columns_of_task(task)), *_AFTER_TASKS]


def _columns_of_task(task: str) -> tuple[str, str]:
    """The columns of the answer and of its probability; ``task_source`` if the task has another column's name."""
    name = f"task_{task}" if task in (*_BEFORE_TASKS, *_AFTER_TASKS) else task
    return name, f"{name}_probability"


def cells_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the cells of a CSV file."""
    cells = {name: value for name, value in row.items() if value is not None}
    for name, columns in BOX_COLUMNS.items():
        if box := cells.pop(name, None):
            cells |= zip(columns, box, strict=True)
    for task, answer in cells.pop("tasks", {}).items():
        cells |= zip(_columns_of_task(task), (answer["value"], answer.get("probability", "")), strict=True)
    return cells | {name: "; ".join(cells.get(name, ())) for name in ("inputs", "flags") if name in row}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _rounded_box(box: Box | None) -> list[float] | None:
    return None if box is None else [_rounded_edge(edge) for edge in box]


def _rounded_edge(edge: float) -> float:
    """Round to a tenth, within the same pixel: crops are cut at whole pixels, and ``--boxes`` may get these boxes."""
    rounded = round(edge, 1)
    return rounded if int(rounded) == int(edge) else math.trunc(10 * edge) / 10


def describe(row: dict[str, Any]) -> str:
    """A row of an image as a line of text."""
    where = row["source"]
    if "age" not in row:
        return f"{where}: {NOBODY}"
    box = row["face"] or row["body"]
    at = "" if box is None else f" at {', '.join(f'{edge:.0f}' for edge in box)}"
    return f"{where}{at}: {answer(row)}{_flags(row)}"


def answer(row: dict[str, Any]) -> str:
    """A person's estimates as words: the age with its interval, the gender and the tasks."""
    age = _years(row["age"])
    if row["age_lower"] is not None:
        age += f" ({row['age_lower']:.0f} to {row['age_upper']:.0f})"
    tasks = "".join(
        f", {name} {task['value']}" for name, task in row["tasks"].items() if not isinstance(task["value"], list)
    )
    return f"{age}{_gender(row)}{tasks}"


def describe_track(row: dict[str, Any]) -> str:
    """A row of ``track_row`` as a line of text."""
    frames = f"frames {row['first_frame']} to {row['last_frame']}"
    return f"{row['source']} track {row['track']}, {frames}: {_years(row['age'])}{_gender(row)}{_flags(row)}"


def _years(age: float | None) -> str:
    return "no age" if age is None else count_of(round(age), "year")


def _gender(row: dict[str, Any]) -> str:
    return f", {row['gender']} {row['gender_probability']:.0%}" if row["gender"] else ""


def _flags(row: dict[str, Any]) -> str:
    return f" [{'; '.join(row['flags'])}]" if row["flags"] else ""
