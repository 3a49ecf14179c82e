"""One input, one backbone from timm: the baseline of every method."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mivolo_lite.images.packed import Images
from mivolo_lite.models.backbone import dry_run, make_backbone, require_known
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.models.missing import compute
from mivolo_lite.models.weights import timm_config
from mivolo_lite.ranges import Probability


class SingleModel(AgeModel):
    """The pooled features (B, D) of any timm backbone, from the face or from the body."""

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            input: the image that it takes, face or body.
            backbone: timm's name of the backbone, ``hf-hub:user/name`` or ``local-dir:FOLDER``.
            pretrained: start from timm's weights, or those on the hub or in the folder; it may download them.
            weights: start from this local .safetensors or torch file; its classifier is left out.
            drop_rate: dropout before the head.
            drop_path_rate: stochastic depth.
        """

        input: Literal["face", "body"] = "face"
        backbone: str = "resnet18"
        pretrained: bool = False
        weights: str | None = None
        drop_rate: Probability = 0.0
        drop_path_rate: Probability = 0.0

        def __post_init__(self) -> None:
            require_known(self.backbone, "model.backbone")

    def __init__(self, config: Config, image_size: int):
        super().__init__(config, image_size)
        self.inputs = (config.input,)
        self.backbone = make_backbone(
            config.backbone,
            image_size,
            pretrained=config.pretrained,
            weights=config.weights,
            drop_rate=config.drop_rate,
            drop_path_rate=config.drop_path_rate,
        )
        self.num_features = dry_run(self.backbone, image_size).shape[1]
        self.mean, self.std = (timm_config(self.backbone)[name] for name in ("mean", "std"))

    def forward(self, face: Images, body: Images, batch: int) -> Tensor:
        """(m, D) pooled features of the present images."""
        return compute(self.backbone, face if self.config.input == "face" else body, batch)

    def make_embedding(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_features, bias=False)
