"""Names, shapes and outputs of the published MiVOLO, for weights and images that both sides can make."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch

from mivolo_lite.convert.mivolo import from_checkpoint, to_estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.methods.regression import Regression
from mivolo_lite.models import MODELS

FIXTURES = Path(os.environ.get("PARITY_DIR", ""))
NAMES = ["mivolo_d1_224_6ch_3out", "mivolo_d1_224_3ch_3out", "mivolo_d1_224_3ch_1out"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (FIXTURES / f"{NAMES[0]}.json").is_file(), reason=f"PARITY_DIR names no folder with {NAMES[0]}.json"
    ),
]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_published_outputs(name):
    spec = importlib.util.spec_from_file_location("fill", FIXTURES / "fill.py")
    fixture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixture)
    want = json.loads((FIXTURES / f"{name}.json").read_text())

    cls = MODELS[want["model"]]
    model = cls(cls.Config(input="both" if want["in_chans"] == 6 else "face"), want["input_size"]).eval()
    state = model.volo.state_dict() | model.make_head(want["num_classes"]).state_dict()
    shapes = {key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()}
    assert shapes == want["state"]

    state = fixture.fill(state, want["seed"])
    published = from_checkpoint(
        {"state_dict": state, "min_age": 0, "max_age": 100, "avg_age": 50, "no_gender": want["num_classes"] == 1}, name
    )
    assert published.model == (want["model"], model.config, want["input_size"])
    converted = to_estimator(published)
    model.load_state_dict({key[6:]: value for key, value in converted.items() if key.startswith("model.")})
    images = fixture.wave((want["batch"], want["in_chans"], want["input_size"], want["input_size"]), want["seed"])
    face, body = Images.of(images[:, :3]), Images.of(images[:, 3:]) if want["in_chans"] == 6 else None
    span, heads = AgeSpan(0, 100), {"gender_head.": model.make_head(2)}
    heads["method."] = Regression(model.make_head, span, Regression.Config())
    columns = []
    for prefix, head in heads.items():
        parts = {key.removeprefix(prefix): value for key, value in converted.items() if key.startswith(prefix)}
        if parts:
            head.load_state_dict(head.state_dict() | parts)
            columns.append(head)
    assert sum(len(head(model(face, body, want["batch"]))[0]) for head in columns) == want["num_classes"]
    for prepared in (model, model.for_inference()):
        features = prepared(face, body, want["batch"])
        output = torch.cat([head(features) for head in columns], dim=1)
        torch.testing.assert_close(output, torch.tensor(want["output"]), atol=1e-4, rtol=0)
