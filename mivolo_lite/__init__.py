"""Distributed training of models that estimate age and gender from a face crop, a body crop, or both."""

TYPE_CHECKING = False  # typing's takes an import, and Ctrl-C in the imports before `cli.main` is a traceback

if TYPE_CHECKING:
    from mivolo_lite.inference.predictor import Predictor

__version__ = "0.1.0"

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> object:
    """Import ``Predictor``, and torch with it, on first use, so that ``mivolo-lite --help`` is quick."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mivolo_lite.inference.predictor import Predictor

    return Predictor
