"""MiVOLO v2 as it lies on the hub: a folder with config.json and model.safetensors, here made from our own model."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.convert import mivolo as mivolo_official
from mivolo_lite.convert.convert import convert
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from tests.models.tiny import SIDE, publish_tiny_mivolos

TINY = "mivolo_tiny_48"
README = "---\nlicense: apache-2.0\ntags: [age]\n---\n# A model\n"


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch):
    publish_tiny_mivolos(monkeypatch)


def estimator():
    torch.manual_seed(0)
    return Estimator(Card({"name": TINY}, {"name": "regression"}, {"min_age": 1, "max_age": 95}, SIDE)).eval()


def hub_folder(folder, readme=README, **changes):
    """Our model in the layout of the hub; the ages of its config.json, like MiVOLO v2's, say what an output means."""
    folder.mkdir()
    state = estimator().state_dict()
    published = mivolo_official.from_estimator(state, estimator().method.span, "here")
    save_file(
        {f"mivolo.model.{name}": value.contiguous() for name, value in published.state.items()},
        folder / "model.safetensors",
    )
    config = {"model_type": "mivolo", "min_age": 0, "max_age": 122, "avg_age": 61.0, "in_chans": 6, "num_classes": 3}
    (folder / "config.json").write_text(json.dumps(config | changes))
    if readme:
        (folder / "README.md").write_text(readme)
    return folder


def ages(model):
    generator = torch.Generator().manual_seed(0)
    images = [
        Images.of(torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)) for _ in range(2)
    ]
    with torch.inference_mode():
        age, gender = model.estimate(model(*images))
    return age.mean, gender


def test_it_answers_as_its_config_says_and_names_its_licence(tmp_path, capsys):
    source = hub_folder(tmp_path / "v2")
    main(["convert", str(source), str(tmp_path / "here")])
    assert f"licence of the weights, as {source} says: apache-2.0" in capsys.readouterr().out
    converted = Estimator.load(tmp_path / "here")
    assert converted.card.span == {"min_age": 0, "max_age": 120} and converted.card.licence == "apache-2.0"
    assert converted.card.model["name"] == TINY and converted.card.image_size == SIDE
    before, after = ages(estimator()), ages(converted)
    # An output of 1 is 122 years there, and 94 in the model that the weights are from; 0 is 61, and 48.
    torch.testing.assert_close(after[0], (before[0] - 48) / 94 * 122 + 61, atol=1e-3, rtol=0)
    torch.testing.assert_close(after[1], before[1])


@pytest.mark.slow
def test_it_is_evaluated_and_trained_further(tmp_path, people, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(hub_folder(tmp_path / "v2"), tmp_path / "here")
    data = ["--data.train", f"{people}/train", "--data.val", f"{people}/val", "--data.workers", "0"]
    main(["evaluate", "--checkpoint", "here", "--data", f"{people}/val", "--out", "out", "--report", "no"])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["n"] > 0 and metrics["mae"] > 0
    words = ["--run", "tuned", "--init-from", "here", *data, "--optim.epochs", "1", "--optim.global_batch", "16"]
    config = read_run_config(words)
    assert (config.model.name, config.method.name, config.method.loss, config.data.image_size) == (
        TINY,
        "regression",
        "l2",
        SIDE,
    )
    main(["train", *words])
    tuned, start = (Estimator.load(tmp_path / name).state_dict() for name in ("tuned", "here"))
    assert tuned.keys() == start.keys() and not all(tuned[name].equal(start[name]) for name in tuned)


def test_without_conversion_it_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"in the layout of the hub; `mivolo-lite convert .*v2 OUT` first"):
        Estimator.load(hub_folder(tmp_path / "v2"))


@pytest.mark.slow
def test_there_and_back_it_is_a_published_file(tmp_path):
    convert(hub_folder(tmp_path / "v2"), tmp_path / "here")
    convert(tmp_path / "here", tmp_path / "official.pth.tar")
    convert(tmp_path / "official.pth.tar", tmp_path / "again")
    found, expected = (ages(Estimator.load(tmp_path / name))[0] for name in ("again", "here"))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "readme, licence",
    [
        (None, "does not say the licence"),
        ("# A page without a head", "does not say the licence"),
        ("---\nlicense: [\n---\n", "does not say the licence"),
        ("---\nlicense: other\nlicense_name: mine-1.0\n---\n", "says: mine-1.0"),
    ],
)
def test_the_licence_is_what_the_page_says(readme, licence, tmp_path, capsys):
    main(["convert", str(hub_folder(tmp_path / "v2", readme)), str(tmp_path / "here")])
    assert licence in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"min_age": "young"}, "are not numbers"),
        ({"max_age": 400}, "are not whole years in order from 0 to 150"),
        ({"in_chans": 3}, "says with_persons_model: False"),
        ({"no_gender": True}, "do not fit the model"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_one_line(changes, part, tmp_path):
    with pytest.raises(UserError, match=part):
        convert(hub_folder(tmp_path / "v2", **changes), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_other_folders_are_named_for_what_they_are(tmp_path):
    source = hub_folder(tmp_path / "v2")
    save_file({"vit.weight": torch.zeros(1)}, source / "model.safetensors")
    with pytest.raises(UserError, match="not MiVOLO's: no name begins with mivolo.model."):
        convert(source, tmp_path / "here")
    (source / "config.json").write_text("[")
    with pytest.raises(UserError, match="not MiVOLO's"):
        convert(source, tmp_path / "here")
    (source / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(UserError, match="damaged, or no safetensors file"):
        convert(source, tmp_path / "here")
