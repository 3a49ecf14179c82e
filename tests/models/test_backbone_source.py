"""Backbones of a folder, as timm saves them: their weights and normalisation, and what a checkpoint keeps of them."""

import json
import shutil

import pytest
import timm
import torch
from timm.models import save_for_hf

from mivolo_lite.card import Card
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.models.backbone_source import read_source

SPAN = {"min_age": 0, "max_age": 100}
MEAN = [0.1, 0.2, 0.3]


def saved(folder, name="test_resnet", **overlay):
    """A model as timm's ``push_to_hf_hub`` leaves it, with a classifier."""
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=7, pretrained_cfg_overlay=overlay or {"mean": MEAN})
    save_for_hf(model, folder, safe_serialization=True)
    return model


def estimator(folder, model="single", size=32, **options):
    backbones = {"face": f"local-dir:{folder}", "body": "test_resnet"} if model == "dual" else None
    options = {"name": model} | (backbones or {"backbone": f"local-dir:{folder}"}) | options
    return Estimator(Card(options, {"name": "dldl"}, dict(SPAN), size))


def test_its_weights_are_those_in_the_folder_and_the_card_names_the_architecture(tmp_path):
    original = saved(tmp_path / "timm").state_dict()
    made = estimator(tmp_path / "timm", pretrained=True)
    backbone = made.model.backbone.state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in backbone.items())
    assert made.card.model["backbone"] == "test_resnet" and list(made.card.normalisation["mean"]) == MEAN
    made.eval().save(tmp_path / "out")
    shutil.rmtree(tmp_path / "timm")
    read_source.cache_clear()
    images = Images.of(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert torch.equal(Estimator.load(tmp_path / "out")(images)["age"], made(images)["age"])


def test_without_pretrained_it_is_the_architecture_alone(tmp_path):
    original = saved(tmp_path / "timm").state_dict()
    backbone = estimator(tmp_path / "timm").model.backbone.state_dict()
    assert backbone.keys() < original.keys()
    assert not torch.equal(backbone["conv1.0.weight"], original["conv1.0.weight"])


def test_position_tables_are_resized_as_timm_does(tmp_path):
    saved(tmp_path / "timm", "test_vit")
    made = estimator(tmp_path / "timm", size=64, pretrained=True)
    expected = timm.create_model(f"local-dir:{tmp_path}/timm", pretrained=True, num_classes=0, img_size=64)
    torch.testing.assert_close(made.model.backbone.pos_embed, expected.pos_embed)


def test_a_folder_with_torchs_file_is_read_as_tensors_alone(tmp_path):
    original = saved(tmp_path / "timm").state_dict()
    (tmp_path / "timm/model.safetensors").unlink()
    torch.save(original, tmp_path / "timm/pytorch_model.bin")
    backbone = estimator(tmp_path / "timm", pretrained=True).model.backbone
    assert torch.equal(backbone.conv1[0].weight, original["conv1.0.weight"])
    torch.save({"model": shutil.rmtree}, tmp_path / "timm/pytorch_model.bin")
    with pytest.raises(UserError, match="holds the object shutil.rmtree"):
        estimator(tmp_path / "timm", pretrained=True)


@pytest.mark.parametrize(
    "change, message",
    [
        (None, "no config.json here; give a folder that timm saved a model in"),
        ({"architecture": None}, "timm .* has no model 'None'"),
        ({"architecture": "resnet_of_mine"}, "timm .* has no model 'resnet_of_mine'"),
        ({"model_args": {"img_size": 64, "drop_block_rate": 0.1}}, "built with drop_block_rate, which its name alone"),
        ([], "config.json is not timm's: it names no architecture"),
    ],
)
def test_a_folder_that_holds_no_such_model_is_one_line(change, message, tmp_path):
    if change is not None:
        saved(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(change if isinstance(change, list) else config | change))
    read_source.cache_clear()
    words = ["--config", "pkg:utkface", "--run", "x", "--model.backbone", f"local-dir:{tmp_path}"]
    with pytest.raises(UserError, match=f"command line: model.backbone: .*{message}|model: .*{message}"):
        read_run_config(words)


def test_of_two_backbones_none_may_be_normalised_otherwise(tmp_path):
    saved(tmp_path / "other")
    with pytest.raises(UserError, match="is normalised otherwise than timm's; only single and multilevel keep that"):
        estimator(tmp_path / "other", "dual")
    saved(tmp_path / "usual", crop_pct=0.9)
    assert estimator(tmp_path / "usual", "dual").card.model["face"] == "test_resnet"


def test_other_names_are_timms(tmp_path):
    with pytest.raises(UserError, match="has no model 'local:x'"):
        Estimator(Card({"name": "single", "backbone": "local:x"}, {"name": "dldl"}, dict(SPAN), 32))
