"""The models that a configuration may name."""

from mivolo_lite.models.dual import DualModel
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.models.mivolo import MIVOLO
from mivolo_lite.models.multilevel import MultilevelModel
from mivolo_lite.models.single import SingleModel
from mivolo_lite.models.swinface import SwinFaceModel

MODELS: dict[str, type[AgeModel]] = {
    "single": SingleModel,
    "dual": DualModel,
    "multilevel": MultilevelModel,
    "swinface": SwinFaceModel,
    **MIVOLO,
}
"""Every model by its name in a configuration."""
