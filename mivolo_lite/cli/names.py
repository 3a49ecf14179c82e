"""Names of models and methods for ``mivolo-lite --help``, which does not wait for torch. A test compares them."""

MODEL_NAMES = (
    "single", "dual", "multilevel", "swinface", "mivolo_d1_112", "mivolo_d1_224", "mivolo_d1_384", "mivolo_d2_224",
    "mivolo_d2_384", "mivolo_d3_224", "mivolo_d3_448", "mivolo_d4_224", "mivolo_d4_448", "mivolo_d5_224",
    "mivolo_d5_448", "mivolo_d5_512",
)  # fmt: skip
"""Those of ``mivolo_lite.models.MODELS``."""

METHOD_NAMES = (
    "regression", "classification", "dldl", "dldl_v2", "sord", "mean_variance", "mean_residue", "unimodal", "coral",
    "corn", "or_cnn", "forest",
)  # fmt: skip
"""Those of ``mivolo_lite.methods.METHODS``."""
