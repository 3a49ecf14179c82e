"""Small estimators of every model and method, and their exported files."""

import numpy as np
import torch

from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.models import MODELS
from tests.models.tiny import SIDE, TinyMivolo

SMALL = {
    "single": {"backbone": "test_resnet"},
    "dual": {"face": "test_resnet", "body": "test_vit", "dim": 32},
    "multilevel": {"backbone": "test_efficientnet", "levels": 3, "width": 32},
    "swinface": {},
    "mivolo_d1_224": {},
}
"""Options of every model; MiVOLO stands for all of its sizes, which differ in widths and depths alone."""

TASKS = [{"name": "glasses", "classes": ["no", "yes"]}, {"name": "smile", "kind": "regression"}]
CALIBRATION = {"level": 0.9, "by": "all", "radius": 7.5, "radii": {}, "gender_temperature": 1.5}


def small_estimator(model="single", method="classification", monkeypatch=None, **card):
    """With a head whose answers differ from image to image by years."""
    torch.manual_seed(0)
    if monkeypatch is not None:
        monkeypatch.setitem(MODELS, "mivolo_d1_224", TinyMivolo)
    options = {"tasks": TASKS, "calibration": CALIBRATION} | card
    span = {"min_age": 0, "max_age": 100}
    estimator = Estimator(Card({"name": model, **SMALL[model]}, {"name": method}, span, SIDE, **options)).eval()
    with torch.no_grad():
        for name, parameter in estimator.named_parameters():
            if "head" in name and name.endswith("weight"):
                parameter.mul_(30)
    return estimator


def photos(batch, seed=0):
    """(B, 3, S, S) uint8: blobs, which a network tells apart better than noise."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.integers(0, 256, (batch, 3, 4, 4))).float()
    return torch.nn.functional.interpolate(coarse, size=SIDE, mode="bilinear").to(torch.uint8)
