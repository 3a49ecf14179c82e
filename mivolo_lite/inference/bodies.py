"""Finds bodies with a torchvision detector: with torchvision's weights, or with those in a user's file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import detection, get_model_weights

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.inference.windows import Detection
from mivolo_lite.models.weights import StateDict, load_exactly, read_state_dict
from mivolo_lite.output import complain

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ssdlite320_mobilenet_v3_large": detection.ssdlite320_mobilenet_v3_large,
    "fasterrcnn_mobilenet_v3_large_320_fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    "fasterrcnn_mobilenet_v3_large_fpn": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "fasterrcnn_resnet50_fpn": detection.fasterrcnn_resnet50_fpn,
}
"""Detectors of torchvision. The weights of MobileNet's two Faster R-CNNs have equal shapes but need other photo sizes:
the file's name selects one."""

_PERSON = 1  # class number in COCO, as in torchvision
_CLASSES = 91
_MIN_SCORE = 0.6  # detections with a lower score are dropped


class BodyDetector:
    """Finds people in a photo.

    Args:
        network: a torchvision detector of COCO's classes, in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, self.device = network, next(network.parameters()).device

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        """The bodies in a photo (H, W, 3) uint8 RGB, highest score first."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(self.device).float() / 255
        (output,) = self.network([pixels])
        boxes, scores, labels = (output[name].tolist() for name in ("boxes", "scores", "labels"))
        return [
            Detection((box[0], box[1], box[2], box[3]), score)
            for box, score, label in zip(boxes, scores, labels, strict=True)
            if label == _PERSON and score >= _MIN_SCORE
        ]


def require_body_detector(name: str) -> None:
    """Raise UserError if the name is neither in ``NETWORKS`` nor a file."""
    if name not in NETWORKS and not Path(name).is_file():
        raise UserError(
            f"--persons {name}: no such file; give rule, none, one of the names {_names()}, or a file with such weights"
        )


def open_body_detector(name: str, device: torch.device) -> BodyDetector:
    """The detector of a name or a file.

    Args:
        name: one of ``NETWORKS``, with torchvision's weights, or a file with the state dict of one of them:
            safetensors, or torch's, read without unpickling code. The file's name and shapes select the network.
        device: of the detector.

    Raises:
        UserError: no such file, the weights of another network, or they cannot be downloaded.
    """
    require_body_detector(name)
    if name in NETWORKS:
        return _detector(name, _published_weights(name), device)
    state = read_state_dict(name)
    shapes = _shapes(state)
    for title in sorted(NETWORKS, key=lambda title: title not in Path(name).name):
        if _shapes(_network(title).state_dict()) == shapes:
            return _detector(title, state, device)
    raise UserError(f"--persons {name}: fits none of torchvision's {_names()}")


def _detector(title: str, state: StateDict, device: torch.device) -> BodyDetector:
    network = _network(title)
    load_exactly(network, state, f"--persons {title}")
    return BodyDetector(network.eval().to(device))


def _network(title: str) -> nn.Module:
    return NETWORKS[title](weights=None, weights_backbone=None, num_classes=_CLASSES)


def _shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _published_weights(title: str) -> StateDict:
    """torchvision's COCO weights from torch's cache, or downloaded into it and checked by the digest in their name."""
    url = get_model_weights(title).DEFAULT.url
    file = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not file.is_file():
        complain(f"fetching {url} to {file}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:  # no network; another digest
            raise UserError(
                f"--persons {title}: {url} cannot be fetched ({first_line(error)}); put the file into {file.parent}"
            ) from None
    return read_state_dict(file)


def _names() -> str:
    return ", ".join(NETWORKS)
