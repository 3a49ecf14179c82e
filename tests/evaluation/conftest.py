"""What tests of whole evaluations share: shards, a model of two inputs, and no time spent on drawing."""

import pytest

from tests.evaluation.untrained import save
from tests.shards.tiny_shards import make_shards


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two shards of 20 and 10 samples."""
    return make_shards(tmp_path_factory.mktemp("shards"), [20, 10])


@pytest.fixture(scope="module")
def dual(tmp_path_factory):
    model = {"name": "dual", "face": "test_resnet", "body": "test_vit", "dim": 16}
    return save(model, tmp_path_factory.mktemp("dual"))


@pytest.fixture
def no_drawing(monkeypatch):
    """What a report shows is tested elsewhere."""
    monkeypatch.setattr("mivolo_lite.evaluation.evaluation_report.write_evaluation_report", lambda *_: None)
