"""MiVOLO's published checkpoints become this package's, and the other way round."""

from dataclasses import asdict
from pathlib import Path

import torch

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.models.mivolo_official import (
    from_estimator,
    read_published,
    to_checkpoint,
    to_estimator,
)

_NOT_PUBLISHED = {"method.center", "method.start", "method.age_weight"}
"""Follow from the span; MiVOLO's files do not hold them."""


def convert(source: Path | str, out: Path | str) -> Path:
    """Convert in the direction that the source asks for.

    Args:
        source: a published ``.pth.tar``, or the ``best`` folder of a MiVOLO trained here.
        out: the folder, or the file, that is written; must not exist.

    Raises:
        UserError: ``out`` exists, or the source is not a MiVOLO of either kind.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise UserError(f"{out}: already exists; remove it or choose another name")
    if source.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(to_checkpoint(_published(source)), out)
    else:
        _estimator(source).save(out)
    return out


def _estimator(source: Path) -> Estimator:
    """A published file as an estimator. One without gender answers one half for everybody."""
    published = read_published(source)
    name, config, image_size = published.model
    method = {"name": "regression", "loss": "l2", "normalise": True}
    estimator = Estimator(Card({"name": name, **asdict(config)}, method, asdict(published.span), image_size))
    expected = set(_NOT_PUBLISHED)
    if not published.has_gender:
        for parameter in estimator.gender_head.parameters():
            torch.nn.init.zeros_(parameter)
        expected |= {f"gender_head.{key}" for key in estimator.gender_head.state_dict()}
    missing, unexpected = estimator.load_state_dict(to_estimator(published), strict=False)
    if unexpected or set(missing) != expected:
        raise UserError(
            f"{source}: does not fit {name}: missing {sorted(set(missing) - expected)}, unexpected {unexpected}"
        )
    return estimator.eval()


def _published(source: Path):
    estimator = Estimator.load(source)
    model, method = estimator.card.model, estimator.card.method
    if not model["name"].startswith("mivolo_"):
        raise UserError(f"{source}: is a {model['name']} model; only MiVOLO's have a published layout")
    if method["name"] != "regression" or not method.get("normalise", True):
        raise UserError(f"{source}: MiVOLO's layout holds the normalised age alone; train it with `method: regression`")
    return from_estimator(estimator.state_dict(), AgeSpan(**estimator.card.span), source)
