"""Names, shapes and every output of the published SwinFace, through the conversion, for weights both sides can make."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch

from mivolo_lite.cli import main
from mivolo_lite.convert.swinface import STATE_DICTS
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images

FIXTURES = Path(os.environ.get("PARITY_DIR", ""))
WANTED = FIXTURES / "swinface.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WANTED.is_file(), reason="PARITY_DIR names no folder with swinface.json"),
]


@pytest.fixture(scope="module")
def wanted():
    return json.loads(WANTED.read_text())


@pytest.fixture(scope="module")
def noise():
    spec = importlib.util.spec_from_file_location("fill", FIXTURES / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def converted(wanted, noise, tmp_path_factory):
    """The published checkpoint, and the folder that the command makes of it."""
    folder = tmp_path_factory.mktemp("swinface")
    published = {}
    for key, shapes in wanted["state"].items():
        state = {name: torch.zeros(shape, dtype=getattr(torch, kind)) for name, (shape, kind) in shapes.items()}
        learnt = {name: value for name, value in state.items() if not name.endswith(tuple(wanted["constant_buffers"]))}
        published[key] = state | noise.fill(learnt, wanted["seed"])
    torch.save(published | {"global_step": 80000}, folder / "official.pt")
    main(["convert", str(folder / "official.pt"), str(folder / "best")])
    return published, folder / "best"


@torch.no_grad()
def test_published_outputs(wanted, noise, converted):
    estimator = Estimator.load(converted[1])
    images = noise.wave((wanted["batch"], 3, wanted["input_size"], wanted["input_size"]), wanted["seed"])
    # The images of the fixture are normalised already, and not of whole grey levels.
    found = estimator(Images.of((images * 0.5 + 0.5) * 255))
    estimate, gender = estimator.estimate(found)
    assert len(found) == len(wanted["output"]) == 43
    for name, output in wanted["output"].items():
        output = torch.tensor(output)
        ours = found[name.lower().replace(" ", "_").replace("'", "_")]
        if name == "Age":
            ours = estimate.mean[:, None]
        if name == "Gender":
            torch.testing.assert_close(gender, output.flip(1).softmax(dim=1), atol=1e-4, rtol=0)
            ours = ours.flip(1)
        torch.testing.assert_close(ours, output, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_back_it_is_the_same_to_the_last_bit(wanted, converted, tmp_path):
    published, best = converted
    main(["convert", str(best), str(tmp_path / "official.pt")])
    again = torch.load(tmp_path / "official.pt", weights_only=True)
    shapes = {
        key: {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in state.items()}
        for key, state in again.items()
    }
    assert shapes == wanted["state"]
    for key in STATE_DICTS:
        for name, value in published[key].items():
            unread = key == "state_dict_backbone" and name.startswith("head.")
            constant = name.endswith(tuple(wanted["constant_buffers"]))
            assert unread or constant or torch.equal(again[key][name], value), name
