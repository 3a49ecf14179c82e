"""Makes the package's checkpoint from a run's: in half precision, with the crop rule and the training data in its card.

    python benchmarks/default_checkpoint.py RUN/best mivolo_lite/weights 0.95 0.08

The last two are ``face_square`` and ``face_shift`` of the crop rules, which frame faces in photos like FairFace's
published crops. It writes ``model.safetensors`` in float16 and ``model.yaml``; ``README.md`` is
written by hand. Ages differ from the run's by at most 0.05 years, which tests/inference/test_checkpoints.py checks.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from mivolo_lite.card import MODEL_FILE, Card, locate
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import save_tensors
from mivolo_lite.inference.defaults import YUNET
from mivolo_lite.models.weights import require_finite
from mivolo_lite.packing.crops import CropRules
from mivolo_lite.shards.framing import DETECTOR_KEY

MOST_BYTES = 8_000_000
LICENCE = "apache-2.0"
ATTRIBUTION = (
    "FairFace (K. Kärkkäinen and J. Joo, WACV 2021, CC BY 4.0), official portraits of the US Congress (public domain), "
    "ImageNet weights of timm (Apache-2.0)"
)


def shrink(best: Path, out: Path, detector: str, face_square: float, face_shift: float) -> None:
    """Write a checkpoint in float16, with one rule for all crops.

    Args:
        best: folder of the run's best checkpoint.
        out: folder to write, created if missing. Its card omits the addresses of data sets.
        detector: name of the face detector whose boxes are used.
        face_square, face_shift: of the crop rules.

    Raises:
        UserError: a weight is too large for float16, or the file is larger than 8 MB.
    """
    estimator = Estimator.load(best)
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in estimator.state_dict().items()
    }
    require_finite(weights, best)
    card = Card.load(locate(best)).from_nothing()
    rules = CropRules(crop_size=card.image_size, face_square=face_square, face_shift=face_shift)
    out.mkdir(parents=True, exist_ok=True)
    save_tensors(weights, out / MODEL_FILE)
    policy = rules.policy() | {DETECTOR_KEY: detector}
    replace(card, crop_policy=policy, licence=LICENCE, attribution=ATTRIBUTION).save(out)
    size = (out / MODEL_FILE).stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{out / MODEL_FILE}: {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    shrink(Path(sys.argv[1]), Path(sys.argv[2]), YUNET, *map(float, sys.argv[3:5]))
