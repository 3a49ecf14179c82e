"""A backbone for the face, one for the body, and an enhancer that fuses them. Either image may be missing."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images, scatter
from mivolo_lite.models.backbone import Tokens, require_known
from mivolo_lite.models.enhancer import Enhancer
from mivolo_lite.models.interface import AgeModel, Channels
from mivolo_lite.models.missing import compute
from mivolo_lite.ranges import Probability, int_range


class Branch(nn.Module):
    """One image's tokens (B, N, D), or a learned missing-input token for the image that is missing."""

    def __init__(self, tokens: Tokens, dim: int):
        super().__init__()
        self.tokens = tokens
        self.project = nn.Linear(tokens.num_features, dim)
        self.missing_token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.missing_token, std=0.02)

    def forward(self, images: Images, batch: int) -> Tensor:
        """(B, N, D), the missing-input token in rows without an image; (B, 1, D) if all are, without gradients."""
        if not torch.is_grad_enabled() and not images.pixels.shape[0]:
            return self.missing_token.expand(batch, -1, -1)
        tokens = self.project(compute(self.tokens, images, batch))
        return scatter(tokens, images.rows, batch, self.missing_token.expand(1, tokens.shape[1], -1))


class DualModel(AgeModel):
    """Features (B, dim) of a face and a body, one of which may be missing."""

    inputs = ("face", "body")

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            face: timm's name of the face's backbone.
            body: timm's name of the body's backbone.
            pretrained: start both from timm's weights, which may download them.
            face_weights: start the face's backbone from this local file, timm's or that of a run of ``single``; its
                classifier is left out.
            body_weights: the same for the body's.
            dim: width of the enhancer's tokens, and of the features.
            heads: attention heads of the enhancer.
            drop_path_rate: stochastic depth of both backbones.
        """

        face: str = "resnet18"
        body: str = "resnet18"
        pretrained: bool = False
        face_weights: str | None = None
        body_weights: str | None = None
        dim: Annotated[int, int_range(1, 65536)] = 256
        heads: Annotated[int, int_range(1, 65536)] = 4
        drop_path_rate: Probability = 0.0

        def __post_init__(self) -> None:
            require_known(self.face, "model.face")
            require_known(self.body, "model.body")
            if self.heads < 1 or self.dim < 1 or self.dim % self.heads:
                raise UserError(f"model.dim {self.dim} must be a multiple of model.heads {self.heads}, both at least 1")

    def __init__(self, config: Config, image_size: int):
        super().__init__(config, image_size)
        options = {"pretrained": config.pretrained, "drop_path_rate": config.drop_path_rate}
        face = Tokens(config.face, image_size, weights=config.face_weights, **options)
        body = Tokens(config.body, image_size, weights=config.body_weights, **options)
        self.face = Branch(face, config.dim)
        self.body = Branch(body, config.dim)
        self.enhancer = Enhancer(config.dim, config.heads)
        self.num_features = config.dim
        self.mean, self.std = face.mean, face.std
        self.body_mean, self.body_std = body.mean, body.std

    def normalisation(self, name: str, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
        """The face's normalisation is that of the card; the body's is that of its backbone."""
        return (mean, std) if name == "face" else (self.body_mean, self.body_std)

    def forward(self, face: Images, body: Images, batch: int) -> Tensor:
        """(B, dim)."""
        return self.enhancer(self.face(face, batch), self.body(body, batch))
