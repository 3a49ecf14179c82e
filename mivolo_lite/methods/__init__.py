"""Ways to estimate age, one file each, behind one interface."""

from mivolo_lite.methods.classification import Classification
from mivolo_lite.methods.interface import AgeMethod
from mivolo_lite.methods.regression import Regression

METHODS: dict[str, type[AgeMethod]] = {
    "regression": Regression,
    "classification": Classification,
}
"""Every method by its name in a configuration."""
