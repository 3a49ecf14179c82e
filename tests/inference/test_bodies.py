"""Bodies by torchvision's detectors, whose weights a user brings."""

import numpy as np
import pytest
import torch
from torchvision.models import detection

from mivolo_lite import Predictor
from mivolo_lite.errors import UserError
from mivolo_lite.inference.bodies import BodyDetector, open_body_detector
from tests.inference.scenes import tiny_estimator

CPU = torch.device("cpu")


class Finds(torch.nn.Module):
    """Answers as torchvision's detectors do: a person, a doubtful one and a dog."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        assert images[0].shape == (3, 40, 60) and images[0].max() <= 1
        box = torch.tensor([1.0, 2.0, 30.0, 40.0])
        return [
            {"boxes": box.repeat(3, 1), "scores": torch.tensor([0.9, 0.3, 0.8]), "labels": torch.tensor([1, 1, 18])}
        ]


def test_only_sure_people_are_bodies():
    (body,) = BodyDetector(Finds())(np.full((40, 60, 3), 255, np.uint8))
    assert body.box == (1, 2, 30, 40) and body.score == pytest.approx(0.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_a_state_dict_is_loaded_by_its_names_and_shapes(name, tmp_path):
    network = getattr(detection, name)(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / f"{name}.pth")
    loaded = open_body_detector(str(tmp_path / f"{name}.pth"), CPU)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.network.state_dict().items())
    assert type(loaded.network) is type(network) and loaded.network.transform.min_size == network.transform.min_size
    assert isinstance(loaded(np.full((90, 120, 3), 90, np.uint8)), list)


def test_another_file_is_one_line(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, message in (("none.pth", "no such file"), ("other.pth", "fits none of torchvision's ssdlite320")):
        with pytest.raises(UserError, match=message):
            open_body_detector(str(tmp_path / name), CPU)


def test_a_model_of_faces_needs_no_bodies(tmp_path):
    tiny_estimator().save(tmp_path / "best")
    with pytest.raises(UserError, match="--persons none.pth: no such file"):
        Predictor.load(tmp_path / "best", persons="none.pth")
