"""A MiVOLO and a SwinFace of few weights: timm's VOLO and Swin with every kind of layer once, at 48 pixels.

``test_vit_short`` and ``test_convnext_short`` are timm's ``test_vit`` and ``test_convnext`` with fewer of their blocks,
which are alike.
"""

import pytest
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import test_convnext
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import test_vit
from timm.models.volo import VOLO

from mivolo_lite.convert.mivolo import VARIANTS
from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS
from mivolo_lite.models.mivolo import MIVOLO, MivoloModel
from mivolo_lite.models.swinface import SwinFaceModel

SIDE = 48
BATCH = 2

FIXED = {"input_size": (3, 224, 224), "fixed_input_size": True}
default_cfgs = generate_default_cfgs({"volo_tiny_224.": FIXED, "swin_nano_224.": FIXED, "test_vit_short.": FIXED})


@register_model
def volo_tiny_224(pretrained=False, **options):
    size = {"layers": (1, 1, 1, 1), "embed_dims": (24, 48, 48, 48), "num_heads": (2, 4, 4, 4), "stem_hidden_dim": 8}
    return build_model_with_cfg(VOLO, "volo_tiny_224", pretrained, **size, **options)


@register_model
def swin_nano_224(pretrained=False, **options):
    size = {"window_size": 7, "embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    return build_model_with_cfg(SwinTransformer, "swin_nano_224", pretrained, **size, **options)


@register_model
def test_vit_short(pretrained=False, **options):
    return test_vit(pretrained, depth=2, **options)


@register_model
def test_convnext_short(pretrained=False, **options):
    return test_convnext(pretrained, depths=(1, 1, 1, 1), **options)


class TinySwinFace(SwinFaceModel):
    backbone = "swin_nano_224"


class TinyMivolo(MivoloModel):
    variant, size = "tiny", SIDE


class LargerTinyMivolo(MivoloModel):
    variant, size = "tiny", 64


def publish_tiny_mivolos(patch: pytest.MonkeyPatch) -> None:
    """As if the tiny ones had been published: their weights say of themselves what the others' say."""
    patch.setitem(VARIANTS, (48, 1), "tiny")
    for cls in (TinyMivolo, LargerTinyMivolo):
        for registry in (MIVOLO, MODELS):
            patch.setitem(registry, f"mivolo_tiny_{cls.size}", cls)


def tiny_mivolo(cls=TinyMivolo, seed=0, **options):
    """With weights and batch statistics in which no two parts are alike by chance or by initialisation."""
    generator = torch.Generator().manual_seed(seed)
    model = cls(cls.Config(**options), cls.size).eval()
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.rand(value.shape, generator=generator) * 2 - 1
        if value.ndim == 1 or "map.norm" in name:
            value.copy_(0.2 * noise + (1.0 if name.endswith(("weight", "running_var")) else 0.0))
        else:
            value.copy_(noise * (3 / value[0].numel()) ** 0.5)
    return model


def images(seed=0, side=SIDE):
    return torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(seed))


def features(model, face, body=None):
    """What a model makes of a batch in which every sample has these images."""
    return model(*(None if pixels is None else Images.of(pixels) for pixels in (face, body)), BATCH)
