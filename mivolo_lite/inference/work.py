"""What passes between reading and writing: options, and the results of a piece of work."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mivolo_lite.inference.boxes import BoxesFile


@dataclass
class Result:
    """What came of an item.

    Attributes:
        rows: of people, or of nobody.
        tracks: of the people of a video.
        rejected: what could not be read, each with its reason.
        frame: of a video, the last frame that was looked at.
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
        boxes: where people are, in place of the detectors.
        annotated: folder for images and videos with boxes and ages; None draws none.
        stride: of a video, every so many-th frame is looked at.
        batch: photos or frames that are held at once, at most.
    """

    boxes: BoxesFile | None = None
    annotated: Path | None = None
    stride: int = 1
    batch: int = 32
