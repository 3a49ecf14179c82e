"""A checkpoint onto the hub and back, against a server that answers as the hub does."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import timm
import yaml
from safetensors.torch import save
from timm.models import save_for_hf

from mivolo_lite.card import Card, locate
from mivolo_lite.convert import mivolo
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.hub import HubAddress, hub_error, is_hub_address, local_copy
from mivolo_lite.inference.model_card import UNKNOWN, model_card
from mivolo_lite.inference.push import push
from tests.inference.exports import CALIBRATION, small_estimator
from tests.inference.hub_server import TOKEN, running_hub
from tests.shards.tiny_shards import make_shards

SCRIPT = """
import json, torch
from huggingface_hub import HfApi
from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.export import export
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.push import push

def age(estimator):
    face = torch.arange(2 * 3 * 48 * 48).view(2, 3, 48, 48).mul(7).remainder(256).to(torch.uint8)
    with torch.inference_mode():
        return estimator.estimate(estimator(Images.of(face)))[0].age.tolist()

def error(act):
    try:
        act()
    except (UserError, SystemExit) as stop:
        return str(stop)

main("push best me/first --licence cc-by-4.0 --evaluation evaluation --onnx".split())
sha = HfApi().model_info("me/first").sha
main("push other me/first".split())
push("best", "me/hidden", private=True)
push("best", "me/hidden", private=True)
config = read_run_config("--run r --data.train t --data.val v --init-from hf://me/first".split())
main("evaluate --checkpoint hf://me/first --data shards --out out --report no --workers 0".split())
main("calibrate --checkpoint hf://me/first --data shards --level 0.5 --workers 0 --out calibrated".split())
export("hf://me/first", "backbone.pt2", "torch")
main(["convert", "hf://them/mivolo", "converted"])
def from_hub(name):
    model = {"name": "single", "backbone": name, "pretrained": True}
    return Estimator(Card(model, {"name": "dldl"}, {"min_age": 0, "max_age": 9}, 32))

backbone = from_hub("hf-hub:them/backbone")
json.dump({
    "best": age(Estimator.load("best")),
    "other": age(Estimator.load("other")),
    "first": age(Estimator.load(f"hf://me/first@{sha}")),
    "newest": age(Predictor.load("hf://me/first", detector=None).estimator),
    "run": [config.method.name, config.data.image_size, config.model.backbone],
    "converted": Estimator.load("converted").card.licence,
    "calibrated": Estimator.load("calibrated").card.calibration["level"],
    "backbone": [backbone.card.model["backbone"], float(backbone.model.backbone.conv1[0].weight.sum())],
    "no backbone": error(lambda: from_hub("hf-hub:them/nothing")),
    "missing": error(lambda: Estimator.load("hf://me/nothing")),
    "revision": error(lambda: Estimator.load("hf://me/first@v9")),
    "public": error(lambda: push("best", "me/first", private=True)),
    "no file": error(lambda: Estimator.load("hf://me/first/none.pth")),
}, open("found.json", "w"))
"""

METRICS = {
    "data": {"folder": "/home/somebody/data/fairface/val"}, "n": 1200, "mae": 4.5, "cs5": 0.7, "bias": -0.25,
    "gender_accuracy": 0.912, "gender_n": 1100,
    "intervals": {"mae": [4.25, 4.75], "bias": [-0.5, 0.0], "gender_accuracy": [0.9, 0.925]},
    "by": {"group": {
        "East Asian": {"n": 400, "mae": 4, "cs5": 0.75, "bias": 0.5, 
                       "mae_interval": [3.5, 4.5], "bias_interval": [0, 1]},
        "Black": {"n": 12, "mae": 6, "cs5": 0.5, "bias": -1, "mae_interval": None, "bias_interval": None},
    }},
}  # fmt: skip


def write_metrics(folder, metrics=METRICS):
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def negated(estimator):
    """Another estimator of the same kind."""
    for parameter in estimator.method.parameters():
        parameter.data.mul_(-1)
    return estimator


@pytest.mark.parametrize("code, message", [(401, "`hf auth login` signs in"), (403, "may write"), (500, "says: no")])
def test_a_refused_token_is_said_in_the_users_words(code, message):
    error = OSError("no")
    error.response = SimpleNamespace(status_code=code)
    assert message in hub_error(error)


@pytest.mark.slow
def test_there_and_back_again(tmp_path):
    pytest.importorskip("huggingface_hub")
    policies = {"/home/somebody/data/utkface/train": {"crop_size": 64}, "/home/somebody/aaf/train": {"crop_size": 96}}
    small_estimator(method="coral", calibration={}, crop_policy=policies).save(tmp_path / "best")
    negated(small_estimator(method="coral", calibration={})).save(tmp_path / "other")
    write_metrics(tmp_path / "evaluation")
    make_shards(tmp_path / "shards", [12])
    with running_hub() as hub:
        hub.add("them/mivolo", mivolo_v2())
        backbone = timm.create_model("test_resnet", num_classes=5)
        save_for_hf(backbone, tmp_path / "timm", safe_serialization=True)
        hub.add("them/backbone", {path.name: path.read_bytes() for path in (tmp_path / "timm").iterdir()})
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    (first, files), (second, files_of_second) = hub.commits["me/first"]
    assert f"pushed: {hub.url}/me/first/commit/{first}" in run.stdout and second in run.stdout
    assert sorted(files) == ["README.md", "model.onnx", "model.safetensors", "model.yaml"]
    assert files["model.safetensors"] == (tmp_path / "best" / "model.safetensors").read_bytes()
    assert not [name for name, data in files.items() if b"somebody" in data]
    assert "model.onnx" not in files_of_second, "the first checkpoint's, which the page of the second does not name"
    assert hub.private == {"me/hidden"} and len(hub.commits["me/hidden"]) == 2
    assert "me/first: it is a public repository already; make it private" in found["public"]
    page = files["README.md"].decode()
    assert yaml.safe_load(page.split("---")[1])["license"] == "cc-by-4.0" and "4.50 (4.25 to 4.75)" in page
    assert found["first"] == found["best"] != found["other"] == found["newest"]
    assert found["run"] == ["coral", 48, "test_resnet"]
    assert found["converted"] == "apache-2.0" and found["calibrated"] == 0.5
    assert found["backbone"] == ["test_resnet", float(backbone.conv1[0].weight.detach().sum())]
    assert "hf://them/nothing/config.json: " in found["no backbone"]
    assert found["missing"].startswith("hf://me/nothing: there is no such repository, or it is private")
    assert found["revision"] == "hf://me/first@v9: it has no such revision"
    assert found["no file"] == "hf://me/first/none.pth: it has no such file"


def mivolo_v2():
    """A model of faces in the layout of the hub, at the smallest size that is published."""
    card = Card({"name": "mivolo_d1_112", "input": "face"}, {"name": "regression"}, {"min_age": 1, "max_age": 95}, 112)
    estimator = Estimator(card)
    published = mivolo.from_estimator(estimator.state_dict(), estimator.method.span, "here")
    weights = {f"mivolo.model.{name}": value.contiguous() for name, value in published.state.items()}
    config = {"min_age": 0, "max_age": 122, "avg_age": 61, "in_chans": 3}
    page = b"---\nlicense: apache-2.0\n---\n"
    return {"model.safetensors": save(weights), "config.json": json.dumps(config).encode(), "README.md": page}


def test_a_page_says_what_is_known_and_what_is_not():
    card = small_estimator(calibration=CALIBRATION).card
    page = model_card(
        card, "me/first", ["/home/somebody/data/fairface/train"], METRICS, "mine-1.0 by me", (), ["model.onnx"]
    )
    head = yaml.safe_load(page.split("---")[1])
    assert (head["license"], head["license_name"]) == ("other", "mine-1.0 by me") and "onnx" in head["tags"]
    assert "hf://me/first" in page and "model.onnx" in page and "somebody" not in page
    assert "trained on: fairface/train\n* FairFace: CC BY 4.0" in page
    assert "| everybody | 1,200 | 4.50 (4.25 to 4.75) | -0.25 (-0.50 to 0.00) | 70% |" in page
    assert "| group Black | 12 | 6.00 | -1.00 | 50% |" in page and "Gender: 91.2% (90.0 to 92.5) of 1,100" in page
    assert "90% of true ages, within 7.5 years" in page and "no proof of age" in " ".join(page.split())
    card.calibration |= {"by": "age", "radii": {"0-9": 4.0, "10-19": 9.0}}
    assert "within 4.0 to 9.0 years of the estimate, by age" in model_card(card, "me/first", [])
    unknown = model_card(card, "me/first", [])
    assert unknown.count(UNKNOWN) == 3 and "Not measured." in unknown and "license" not in unknown.split("---")[1]
    stated = model_card(card, "me/first", ["data/mine"], None, "", ["Mine: CC0"])
    assert "* Mine: CC0" in stated and stated.count(UNKNOWN) == 1


def test_a_page_of_an_ensemble_says_what_its_members_look_at():
    dual = {"name": "dual", "face": "resnet18", "body": "resnet18"}
    page = model_card(Card({"name": "ensemble", "members": [dual, dual]}, {"name": "coral"}, {}, 112), "me/both", [])
    assert "from a crop of the face, of the body, or of both." in page
    assert "| model | ensemble of 2 x dual resnet18 resnet18 |" in page
    body = {"name": "single", "input": "body", "backbone": "resnet18"}
    page = model_card(Card({"name": "ensemble", "members": [body, body]}, {"name": "coral"}, {}, 112), "me/both", [])
    assert "from a crop of the body." in page


def test_a_page_of_the_packages_weights_names_fairface():
    page = model_card(Card.load(locate("default")), "me/copy", [])
    assert "* to be named: FairFace (K. Kärkkäinen and J. Joo, WACV 2021, CC BY 4.0)" in page


def test_what_is_shared_does_not_say_where_somebody_keeps_data():
    policies = {f"/home/somebody/{disk}/utkface/train": {"crop_size": size} for disk, size in (("a", 64), ("b", 96))}
    card = small_estimator(crop_policy=policies, data_digest="stream:/home/somebody/data/fairface/{0..9}.tar + b").card
    card.model["weights"] = "/home/somebody/resnet.pth"
    shared = card.to_share()
    assert "somebody" not in str(shared) and shared.data_digest == "stream:fairface/{0..9}.tar + b"
    assert shared.crop_policy == {"utkface/train": {"crop_size": 64}, "utkface/train 2": {"crop_size": 96}}
    one = small_estimator(crop_policy={"crop_size": 64, "blank": "all"}, data_digest="abc/def/0").card
    assert (one.to_share().crop_policy, one.to_share().data_digest) == (one.crop_policy, one.data_digest)


def test_without_an_evaluation_the_page_shows_the_validation_metrics():
    card = small_estimator().card
    card.metrics = {"n": 9, "mae": 5.0, "cs5": 0.5, "bias": 1.0, "gender_accuracy": None, "by": {}}
    page = model_card(card, "me/first", [])
    assert "On the validation images of the training: 9 people of known age, without intervals" in page
    assert "| everybody | 9 | 5.00 | 1.00 | 50% |" in page and "Gender:" not in page
    card.metrics["by"] = {"group": {"Black": {"n": 0, "mae": None, "cs5": None, "bias": None}}}  # none has an image
    assert model_card(card, "me/first", []) == page


@pytest.mark.parametrize(
    "address, expected",
    [
        ("hf://me/first", ("me/first", None, None)),
        ("hf://me/first-1.0@v1.2", ("me/first-1.0", "v1.2", None)),
        ("hf://me/first@main/a/model.pth.tar", ("me/first", "main", "a/model.pth.tar")),
        ("hf://me/first/model.pth.tar", ("me/first", None, "model.pth.tar")),
        ("me/first", ("me/first", None, None)),
    ],
)
def test_addresses_are_read(address, expected):
    assert HubAddress.read(address) == expected and is_hub_address(address) == address.startswith("hf://")


@pytest.mark.parametrize("address", ["hf://me", "hf://", "hf://me/first@", "hf://me/ first", "hf://me/first@a b"])
def test_what_is_no_address_is_one_line(address):
    with pytest.raises(UserError, match="not an address on the hub"):
        local_copy(address)


def test_what_cannot_be_pushed_is_one_line(tmp_path, monkeypatch):
    small_estimator().save(tmp_path / "best")
    for evaluation in (tmp_path, write_metrics(tmp_path / "other", {"n": 3})):
        with pytest.raises(UserError, match="has no metrics.json of an evaluation"):
            push(tmp_path / "best", "me/first", evaluation=evaluation)
    with pytest.raises(UserError, match="without a file"):
        push(tmp_path / "best", "me/first/model.yaml")
    with pytest.raises(UserError, match="no model.safetensors here"):
        push(tmp_path / "other", "me/first")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'pip install "mivolo-lite\[hf\]"'):
        push(tmp_path / "best", "me/first")
