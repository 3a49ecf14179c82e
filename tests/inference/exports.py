"""Small estimators of every model and method, and their exported files."""

import numpy as np
import torch

from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS
from mivolo_lite.models.head import Head
from tests.models.tiny import SIDE, TinyMivolo, TinySwinFace

SMALL = {
    "single": {"name": "single", "backbone": "test_resnet"},
    "dual": {"name": "dual", "face": "test_resnet", "body": "test_vit", "dim": 32},
    "multilevel": {"name": "multilevel", "backbone": "test_convnext_short", "levels": 3, "width": 32},
    "swinface": {"name": "swinface"},
    "mivolo_tiny": {"name": "mivolo_tiny"},
    "mivolo_tiny face": {"name": "mivolo_tiny", "input": "face"},
}
"""Options of every model; tiny ones stand for MiVOLO's sizes and SwinFace's: they differ in widths and depths."""

TASKS = [{"name": "glasses", "classes": ["no", "yes"]}, {"name": "smile", "kind": "regression"}]
CALIBRATION = {"level": 0.9, "by": "all", "radius": 7.5, "radii": {}, "gender_temperature": 1.5}


def small_estimator(model="single", method="classification", monkeypatch=None, **card):
    """An estimator of 48 px whose answers differ from image to image by years."""
    torch.manual_seed(0)
    if monkeypatch is not None:
        monkeypatch.setitem(MODELS, "mivolo_tiny", TinyMivolo)
        monkeypatch.setitem(MODELS, "swinface", TinySwinFace)
    options = {"tasks": TASKS, "calibration": CALIBRATION} | card
    span = {"min_age": 0, "max_age": 100}
    return spread_answers(Estimator(Card(dict(SMALL[model]), {"name": method}, span, SIDE, **options)))


@torch.no_grad()
def spread_answers(estimator):
    """The same, in evaluation mode, whose heads tell images apart as trained ones do: new ones answer all alike."""
    hooks = [head.register_forward_hook(_standardise) for head in estimator.modules() if isinstance(head, Head)]
    side = estimator.card.image_size
    images = {name: Images.of(torch.randint(256, (8, 3, side, side), dtype=torch.uint8)) for name in estimator.inputs}
    estimator.eval()(**images)
    for hook in hooks:
        hook.remove()
    return estimator


def _standardise(head, inputs, output):
    """Gives each output of a linear layer the mean 0 and the standard deviation 2 over a batch."""
    outputs = output.flatten(0, -2)
    scale = 2 / outputs.std(0)
    head.weight.mul_(scale[:, None])
    if head.bias is not None:
        head.bias.copy_((head.bias - outputs.mean(0)) * scale)


def photos(batch, seed=0):
    """(B, 3, S, S) uint8: blobs, which a network tells apart better than noise."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.integers(0, 256, (batch, 3, 4, 4))).float()
    return torch.nn.functional.interpolate(coarse, size=SIDE, mode="bilinear").to(torch.uint8)
