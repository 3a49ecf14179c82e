"""What tests of the command share: a detector of red squares, and a checkpoint that is made in a moment."""

import pytest

from mivolo_lite.inference.detect import FaceDetector
from tests.inference.scenes import RedSquares, tiny_estimator


@pytest.fixture
def red_faces(monkeypatch):
    """The command finds red squares instead of faces."""
    monkeypatch.setattr("mivolo_lite.inference.predictor.open_detector", lambda *_: FaceDetector(RedSquares()))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a tiny estimator."""
    folder = tmp_path_factory.mktemp("run") / "best"
    tiny_estimator().save(folder)
    return str(folder)
