"""Models, one file each, behind one interface."""

from collections import ChainMap

from mivolo_lite.models.ensemble import EnsembleModel
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.models.registry import MODELS

BUILDERS: ChainMap[str, type[AgeModel]] = ChainMap({"ensemble": EnsembleModel}, MODELS)
"""Every model by its name on a card: those of configurations, and ensembles."""

__all__ = ["BUILDERS", "MODELS"]
