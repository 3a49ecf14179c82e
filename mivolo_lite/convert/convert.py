"""Converts MiVOLO's and SwinFace's published checkpoints to this package's format, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import torch

from mivolo_lite.card import CARD_FILE, MODEL_FILE, Card, locate
from mivolo_lite.convert import mivolo as mivolo_official
from mivolo_lite.convert import swinface as swinface_official
from mivolo_lite.convert.mivolo_v2 import is_hub_layout, licence_of, read_hub_layout
from mivolo_lite.errors import UserError, first_line
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import new_path, write_bytes
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.models.weights import read_checkpoint
from mivolo_lite.output import complain
from mivolo_lite.tasks import Task, read_tasks

_NOT_PUBLISHED = {"method.center", "method.start", "method.age_weight"}
"""Buffers that follow from the span; MiVOLO's files do not have them."""

_SWINFACE_METHOD = {"name": "regression", "loss": "annealed", "normalise": False}


def convert(source: Path | str, out: Path | str) -> Path:
    """Convert a published checkpoint to this package's format, or one of this package to the published format.

    Args:
        source: a published file, a folder of MiVOLO v2 from the hub, the ``best`` folder of a MiVOLO or a SwinFace of
            this package, or the address of one of them on the hub.
        out: folder or file to write; must not exist.

    Raises:
        UserError: ``out`` exists, or the source is no MiVOLO or SwinFace.
    """
    source, out = locate(source), Path(out)
    if not _is_unfinished(out):
        new_path(out)
    if source.is_dir() and not is_hub_layout(source):
        content = BytesIO()  # torch's error for a full disk is about its internal state
        torch.save(_checkpoint(source), content)
        write_bytes(out, content.getbuffer())
    else:
        _estimator(source).save(out)
    return out


def _is_unfinished(folder: Path) -> bool:
    """Whether the folder is the remainder of a killed conversion, without a card, which is written last."""
    partial_files = {MODEL_FILE, f"{MODEL_FILE}.partial", f"{CARD_FILE}.partial"}
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= partial_files


def _estimator(source: Path) -> Estimator:
    """A published file or folder as an estimator."""
    checkpoint = read_hub_layout(source) if source.is_dir() else read_checkpoint(source)
    swinface = any(key in checkpoint for key in swinface_official.STATE_DICTS)
    try:
        estimator = (_swinface if swinface else _mivolo)(checkpoint, source)
    except UserError:
        raise
    except Exception as error:  # torch's exceptions for values that are no weights
        raise UserError(f"{source}: holds no weights that can be converted: {first_line(error)}") from None
    estimator.card.licence = licence_of(source) if source.is_dir() else ""
    return estimator


def licence_line(source: Path | str) -> str:
    """A line with the licence of a published source."""
    folder = locate(source)
    if folder.is_dir() and (name := licence_of(folder)):
        return f"licence of the weights, as {source} says: {name}"
    return f"{source} does not say the licence of its weights; its authors do"


def _mivolo(checkpoint: Mapping, source: Path) -> Estimator:
    """A published MiVOLO; one without gender has no gender head."""
    published = mivolo_official.from_checkpoint(checkpoint, source)
    name, config, image_size = published.model
    method = {"name": "regression", "loss": "l2", "normalise": True}
    model = {"name": name, **asdict(config)}
    estimator = Estimator(Card(model, method, asdict(published.span), image_size, gender=published.has_gender))
    absent, unexpected = estimator.load_state_dict(mivolo_official.to_estimator(published), strict=False)
    if unexpected or set(absent) != _NOT_PUBLISHED:
        raise UserError(
            f"{source}: does not fit {name}: missing {sorted(set(absent) - _NOT_PUBLISHED)}, unexpected {unexpected}"
        )
    return estimator.eval()


def _swinface(checkpoint: Mapping, source: Path) -> Estimator:
    """A published SwinFace, all its tasks included."""
    card = Card(
        {"name": "swinface"},
        dict(_SWINFACE_METHOD),
        asdict(AgeSpan()),
        swinface_official.SIZE,
        tasks=swinface_official.TASKS,
    )
    estimator = Estimator(card)
    estimator.load_state_dict(
        swinface_official.to_estimator(checkpoint, estimator.state_dict(), estimator.model, source)
    )
    return estimator.eval()


def _checkpoint(source: Path) -> dict:
    """The published checkpoint of a folder. Prints a line on what it cannot store."""
    estimator = Estimator.load(source)
    if lost := _without_place(estimator.card):
        complain(f"note: a published file has no place for the {' and the '.join(lost)} of {source}: left out")
    name, method = estimator.card.model["name"], estimator.card.method
    normalised = method.get("normalise", True) if method["name"] == "regression" else None
    if name.startswith("mivolo_"):
        if not normalised:
            raise UserError(
                f"{source}: MiVOLO's layout holds the normalised age alone; train it with `method: regression`"
            )
        span = AgeSpan(**estimator.card.span)
        return mivolo_official.to_checkpoint(mivolo_official.from_estimator(estimator.state_dict(), span, source))
    if name == "swinface":
        if normalised is not False:
            raise UserError(
                f"{source}: SwinFace's layout holds raw years alone; train it with `method: regression` and "
                "`normalise: false`"
            )
        published = read_tasks(swinface_official.TASKS)
        if estimator.card.image_size != swinface_official.SIZE or not _same_tasks(estimator.tasks, published):
            raise UserError(
                f"{source}: SwinFace's layout is for its own tasks, all of them, at {swinface_official.SIZE} pixels"
            )
        return swinface_official.from_estimator(estimator.state_dict(), estimator.model)
    raise UserError(f"{source}: is a {name} model; only MiVOLO's and SwinFace's have a published layout")


def _without_place(card: Card) -> list[str]:
    """Names of parts of a card that a published file cannot store."""
    has_own_tasks = card.model["name"] != "swinface" and bool(card.tasks)
    entries = {"tasks": has_own_tasks, "calibration": bool(card.calibration), "tta": card.tta != "none"}
    return [name for name, is_there in entries.items() if is_there]


def _same_tasks(tasks: Sequence[Task], published: Sequence[Task]) -> bool:
    """Whether the tasks are the same, in any order."""
    return sorted(tasks, key=lambda task: task.name) == sorted(published, key=lambda task: task.name)
