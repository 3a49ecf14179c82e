"""Ways to estimate age, one file each, behind one interface."""

from mivolo_lite.methods.classification import Classification
from mivolo_lite.methods.coral import Coral
from mivolo_lite.methods.corn import Corn
from mivolo_lite.methods.dldl import Dldl
from mivolo_lite.methods.dldl_v2 import DldlV2
from mivolo_lite.methods.forest import Forest
from mivolo_lite.methods.interface import AgeMethod
from mivolo_lite.methods.mean_residue import MeanResidue
from mivolo_lite.methods.mean_variance import MeanVariance
from mivolo_lite.methods.or_cnn import OrCnn
from mivolo_lite.methods.regression import Regression
from mivolo_lite.methods.sord import Sord
from mivolo_lite.methods.unimodal import Unimodal

METHODS: dict[str, type[AgeMethod]] = {
    "regression": Regression,
    "classification": Classification,
    "dldl": Dldl,
    "dldl_v2": DldlV2,
    "sord": Sord,
    "mean_variance": MeanVariance,
    "mean_residue": MeanResidue,
    "unimodal": Unimodal,
    "coral": Coral,
    "corn": Corn,
    "or_cnn": OrCnn,
    "forest": Forest,
}
"""Every method by its name in a configuration."""
