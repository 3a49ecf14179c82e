"""SwinFace's attention on any timm backbone: each task attends to feature levels and channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images
from mivolo_lite.models.backbone import dry_run, make_backbone, require_known
from mivolo_lite.models.head import Head
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.models.level_attention import Embedding, TaskSubnet, linear
from mivolo_lite.models.missing import compute
from mivolo_lite.models.weights import timm_config
from mivolo_lite.ranges import Probability, int_range


class FeatureLevels(nn.Module):
    """The last maps of a timm backbone, (B, D, H, W) each, the finest first, without the layers after them."""

    backbone: Any  # not all timm models have feature levels

    def __init__(self, name: str, image_size: int, levels: int, **options: Any) -> None:
        super().__init__()
        self.backbone = make_backbone(name, image_size, **options)
        self.pretrained_cfg = timm_config(self.backbone)
        if not hasattr(self.backbone, "forward_intermediates"):
            raise UserError(f"model backbone {name}: timm offers no feature levels of it; take another")
        try:
            self.indices = self.backbone.prune_intermediate_layers(levels, prune_norm=True)
        except AssertionError:
            raise UserError(f"model backbone {name}: has fewer than model.levels {levels}") from None

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of normalised images (B, 3, S, S)."""
        return self.backbone.forward_intermediates(image, indices=self.indices, intermediates_only=True)


def concat_levels(levels: Sequence[Tensor]) -> Tensor:
    """(B, D, H, W): all maps, average-pooled to the grid of the last and coarsest, concatenated."""
    height, width = levels[-1].shape[2:]
    return torch.cat([F.adaptive_avg_pool2d(level, (height, width)) for level in levels], dim=1)


class LevelModel(AgeModel):
    """Features (B, D, H, W) of one image, which subnets turn into (B, C). A subclass sets the levels.

    Attributes:
        dims: channels of each level; they add up to D.
    """

    dims: list[int]

    def set_subnets(self, dims: Sequence[int], width: int, drop_rate: float) -> None:
        """Set the levels' channels, the channels C of a subnet and of the embedding, and the dropout of subnets."""
        self.dims, self.num_features, self.subnet_drop_rate = list(dims), width, drop_rate

    def make_subnet(self) -> nn.Module:
        return TaskSubnet(self.dims, self.num_features, self.subnet_drop_rate)

    def make_embedding(self) -> nn.Module:
        return Embedding(self.dims[-1], self.num_features)

    def make_head(self, outputs: int, bias: bool = True) -> nn.Module:
        return linear(self.num_features, outputs, bias, Head)


class MultilevelModel(LevelModel):
    """The levels of a timm backbone, of the face or of the body."""

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            input: the image that it takes, face or body.
            backbone: timm's name of the backbone, ``hf-hub:user/name`` or ``local-dir:FOLDER``.
            pretrained: start from timm's weights, or those on the hub or in the folder; it may download them.
            weights: start from this local .safetensors or torch file; its classifier is left out.
            levels: number of the backbone's last feature levels.
            width: channels of a task's subnet.
            subnet_drop_rate: dropout in the tasks' subnets.
            drop_path_rate: stochastic depth of the backbone.
        """

        input: Literal["face", "body"] = "face"
        backbone: str = "resnet18"
        pretrained: bool = False
        weights: str | None = None
        levels: Annotated[int, int_range(1, 64)] = 4
        width: Annotated[int, int_range(1, 65536)] = 512
        subnet_drop_rate: Probability = 0.5
        drop_path_rate: Probability = 0.0

        def __post_init__(self) -> None:
            require_known(self.backbone, "model.backbone")

    def __init__(self, config: Config, image_size: int):
        super().__init__(config, image_size)
        self.inputs = (config.input,)
        self.levels = FeatureLevels(
            config.backbone,
            image_size,
            config.levels,
            pretrained=config.pretrained,
            weights=config.weights,
            drop_path_rate=config.drop_path_rate,
        )
        dims = [level.shape[1] for level in dry_run(self.levels, image_size)]
        self.set_subnets(dims, config.width, config.subnet_drop_rate)
        self.mean, self.std = (self.levels.pretrained_cfg[name] for name in ("mean", "std"))

    def forward(self, face: Images, body: Images, batch: int) -> Tensor:
        """(m, D, H, W) of the present images."""
        return concat_levels(compute(self.levels, face if self.config.input == "face" else body, batch))
