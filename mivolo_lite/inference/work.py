"""The options of reading, and the results of an item."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mivolo_lite.inference.boxes import BoxesFile


@dataclass
class Result:
    """A result of an item.

    Attributes:
        rows: of people, or of nobody.
        tracks: of the people of a video.
        rejected: what could not be read, each with its reason.
        frame: the last frame of a video that was processed.
        more: whether other results of the same item follow.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    tracks: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    frame: int | None = None
    more: bool = False


@dataclass(frozen=True)
class PredictOptions:
    """How items are read.

    Attributes:
        boxes: of people, instead of detectors.
        annotated: folder for images and videos with boxes and ages; None draws none.
        stride: every ``stride``-th frame of a video is processed.
        batch: most photos or frames in memory at once.
    """

    boxes: BoxesFile | None = None
    annotated: Path | None = None
    stride: int = 1
    batch: int = 32
