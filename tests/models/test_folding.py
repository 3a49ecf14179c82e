"""Folded batch norms: the same features, fewer layers, and no change where the sums would differ."""

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn

from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS
from mivolo_lite.models.folding import fold_batch_norms

SIDE = 32


def randomise(model):
    """Statistics and weights of norms as after a training; in evaluation mode."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            if norm.track_running_stats:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.2, 4)
            if norm.affine:
                nn.init.normal_(norm.weight, 1, 0.3)
                nn.init.normal_(norm.bias)
    return model.eval()


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def features(model):
    nothing, pixels = Images.none_of(SIDE), torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return model(*(Images.of(pixels) if name in model.inputs else nothing for name in ("face", "body")), 2)


@pytest.mark.parametrize(
    "name, options",
    [
        ("single", {"backbone": "test_efficientnet"}),
        ("single", {"backbone": "test_resnet", "input": "body"}),
        ("dual", {"face": "test_resnet", "body": "test_efficientnet", "dim": 32}),
        ("multilevel", {"backbone": "test_efficientnet", "levels": 3}),
    ],
)
def test_all_norms_of_trained_statistics_are_folded(name, options):
    cls = MODELS[name]
    model = randomise(cls(cls.Config(**options), SIDE))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norms(model)
    assert norms(model) and not norms(folded)
    torch.testing.assert_close(features(folded), features(model), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


class Layers(nn.Module):
    """A model of a few layers, of which the features are what ``forward`` says."""

    inputs, image_size = ("face",), SIDE

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class ReadsBetween(Layers):
    def forward(self, face, body, batch):
        between = self.conv(face.pixels)
        return (between + self.norm(between)).mean((2, 3))


class OneNormForTwo(Layers):
    def forward(self, face, body, batch):
        return self.norm(self.conv(face.pixels)).mean((2, 3)) + self.norm(self.other(face.pixels)).mean((2, 3))


class InARow(Layers):
    def forward(self, face, body, batch):
        return self.norm(self.conv(face.pixels)).relu().mean((2, 3))


@pytest.mark.parametrize(
    "model, is_folded",
    [
        (InARow(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), True),
        (InARow(conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm2d(4, affine=False)), True),
        (InARow(conv=ScaledStdConv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), False),
        (InARow(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4, track_running_stats=False)), False),
        (ReadsBetween(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), False),
        (OneNormForTwo(conv=nn.Conv2d(3, 4, 3), other=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), False),
    ],
)
def test_what_is_no_convolution_and_its_norm_alone_stays(model, is_folded):
    folded = fold_batch_norms(randomise(model))
    assert (not norms(folded)) == is_folded
    torch.testing.assert_close(features(folded), features(model), atol=1e-5, rtol=1e-5)


def test_a_model_without_batch_norms_is_itself():
    cls = MODELS["single"]
    model = cls(cls.Config(backbone="test_vit"), SIDE).eval()
    assert fold_batch_norms(model) is model
