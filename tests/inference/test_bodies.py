"""Bodies by torchvision's detectors, with its weights or those that a user brings."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import detection

from mivolo_lite import Predictor
from mivolo_lite.errors import UserError
from mivolo_lite.inference import bodies
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


NAME = "ssdlite320_mobilenet_v3_large"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publishes a file as torchvision's weights of NAME, and gives the cache into which they are fetched."""

    def publish(data: bytes, digest: str | None = None):
        file = tmp_path / f"ssdlite_coco-{digest or hashlib.sha256(data).hexdigest()[:8]}.pth"
        file.write_bytes(data)
        weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=file.as_uri()))
        monkeypatch.setattr(bodies, "get_model_weights", {NAME: weights}.__getitem__)
        return file

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return publish


@pytest.mark.slow
def test_a_named_detector_is_fetched_once_and_says_so_beside_the_results(published, tmp_path, capfd):
    network = getattr(detection, NAME)(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    file = published((tmp_path / "weights.pth").read_bytes())
    loaded = open_body_detector(NAME, CPU)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.network.state_dict().items())
    said = capfd.readouterr()
    assert said.out == "" and file.name in said.err
    file.unlink()
    assert open_body_detector(NAME, CPU)(np.full((90, 120, 3), 90, np.uint8)) is not None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("data, digest, reason", [(b"", None, "is empty"), (b"other", "0" * 8, "invalid hash")])
def test_a_named_detector_that_is_damaged_is_one_line(data, digest, reason, published):
    file = published(data, digest)
    with pytest.raises(UserError, match=f"{file.name}.*{reason}") as error:
        open_body_detector(NAME, CPU)
    assert "\n" not in str(error.value)


def test_without_network_the_address_and_the_cache_are_named(published, tmp_path):
    published(b"gone").unlink()
    with pytest.raises(
        UserError, match=f"--persons {NAME}: file://.* cannot be fetched .* {tmp_path}/hub/checkpoints$"
    ):
        open_body_detector(NAME, CPU)


@pytest.mark.slow
def test_another_file_is_one_line(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, message in (("none.pth", "no such file"), ("other.pth", "fits none of torchvision's ssdlite320")):
        with pytest.raises(UserError, match=message):
            open_body_detector(str(tmp_path / name), CPU)


def test_a_model_of_faces_needs_no_bodies(published, tmp_path):
    published(b"gone").unlink()  # so that fetching it would be an error
    tiny_estimator().save(tmp_path / "best")
    (note,) = Predictor.load(tmp_path / "best", persons=NAME).notes
    assert note == "the model looks at faces alone; --persons finds no bodies for it"
    with pytest.raises(UserError, match="--persons none.pth: no such file"):
        Predictor.load(tmp_path / "best", persons="none.pth")
