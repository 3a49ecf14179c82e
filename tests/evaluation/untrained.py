"""Untrained estimators for tests of whole evaluations."""

import torch

from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images

SIDE = 32


def save(model, folder, **options):
    """An untrained estimator, its statistics unlike those of a new one."""
    torch.manual_seed(1)
    estimator = Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE, **options))
    noise = Images.of(torch.randint(0, 256, (8, 3, SIDE, SIDE), dtype=torch.uint8))
    estimator(**{name: noise for name in estimator.inputs})
    estimator.save(folder)
    return folder
