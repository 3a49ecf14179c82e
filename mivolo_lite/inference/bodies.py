"""Finding bodies with a torchvision detector whose weights are in a file of the user's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import detection

from mivolo_lite.errors import UserError
from mivolo_lite.inference.windows import Detection
from mivolo_lite.models.weights import read_state_dict

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ssdlite320_mobilenet_v3_large": detection.ssdlite320_mobilenet_v3_large,
    "fasterrcnn_mobilenet_v3_large_320_fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    "fasterrcnn_mobilenet_v3_large_fpn": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "fasterrcnn_resnet50_fpn": detection.fasterrcnn_resnet50_fpn,
}
"""torchvision's. The two Faster R-CNNs of MobileNet have weights of equal shapes and look at photos at different sizes:
the file's name tells which it is."""

_PERSON = 1  # of COCO's classes, as torchvision numbers them
_CLASSES = 91


class BodyDetector:
    """Finds people in a photo.

    Args:
        network: a torchvision detector of COCO's classes, in evaluation mode.
        min_score: detections below are nobody.
    """

    def __init__(self, network: nn.Module, min_score: float = 0.6) -> None:
        self.network, self.min_score = network, min_score
        self.device = next(network.parameters()).device

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        """The bodies in a photo (H, W, 3) uint8 RGB, the surest first."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(self.device).float() / 255
        (found,) = self.network([pixels])
        return [
            Detection((box[0], box[1], box[2], box[3]), score)
            for box, score, label in zip(*(found[name].tolist() for name in ("boxes", "scores", "labels")), strict=True)
            if label == _PERSON and score >= self.min_score
        ]


def open_body_detector(name: str, device: torch.device) -> BodyDetector:
    """The detector whose weights are in a file, by their names and shapes.

    Args:
        name: of a state dict of one of ``NETWORKS``: safetensors, or torch's file, read without unpickling code.
        device: where it computes.

    Raises:
        UserError: no such file, or the weights of another network.
    """
    if not Path(name).is_file():
        raise UserError(f"--persons {name}: no such file; give rule, none, or a file with weights of {_names()}")
    state = read_state_dict(name)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    for title in sorted(NETWORKS, key=lambda title: title not in Path(name).name):
        network = NETWORKS[title](weights=None, weights_backbone=None, num_classes=_CLASSES)
        if {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes:
            network.load_state_dict(state)
            return BodyDetector(network.eval().to(device))
    raise UserError(f"--persons {name}: fits none of torchvision's {_names()}")


def _names() -> str:
    return ", ".join(NETWORKS)
