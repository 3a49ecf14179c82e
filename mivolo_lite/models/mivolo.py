"""MiVOLO (Kuprashevich and Tolstykh, arXiv 2307.04616): timm's VOLO with a stem for the face and one for the body.

The parameters under ``volo`` have the names of the published checkpoints; ``convert/mivolo.py`` converts whole files.
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import timm
import torch
from einops import rearrange
from timm.models.volo import PatchEmbed
from torch import Tensor, nn

from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images, scatter
from mivolo_lite.models.backbone import make_backbone, require_one_source
from mivolo_lite.models.head import Head
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.models.missing import compute, some_again
from mivolo_lite.models.mivolo_enhancer import MivoloEnhancer
from mivolo_lite.models.mivolo_export import for_export
from mivolo_lite.models.mivolo_inference import for_inference
from mivolo_lite.models.mivolo_weights import start_from
from mivolo_lite.models.weights import read_state_dict
from mivolo_lite.ranges import Probability

PATCH = 8
"""Side of a cell of the stems' grid in pixels."""

SIZES = {"d1": (112, 224, 384), "d2": (224, 384), "d3": (224, 448), "d4": (224, 448), "d5": (224, 448, 512)}
"""Image sizes of each VOLO. All but 112 have ImageNet weights in timm."""


class TwoStems(nn.Module):
    """A stem for the face and one for the body, and the enhancer that joins their maps. It replaces VOLO's patch
    embedding."""

    def __init__(self, stem: PatchEmbed, side: int):
        super().__init__()
        self.conv1, self.proj1 = stem.conv, stem.proj
        self.conv2, self.proj2 = copy.deepcopy(stem.conv), copy.deepcopy(stem.proj)
        self.map = MivoloEnhancer(stem.proj.out_channels, side)

    def face(self, image: Tensor) -> Tensor:
        """(B, C, S/8, S/8) from normalised images (B, 3, S, S)."""
        return self.proj1(self.conv1(image))

    def body(self, image: Tensor) -> Tensor:
        """(B, C, S/8, S/8) from normalised images (B, 3, S, S) of bodies."""
        return self.proj2(self.conv2(image))

    def join(self, face: Tensor, body: Tensor) -> Tensor:
        """One map (B, C, S/8, S/8) from two, each of which may be the 3 x 3 cells (1, C, 3, 3) of a black image.

        If both are such cells, the map is (1, C, S/8, S/8).
        """
        face, body = (rearrange(grid, "b c h w -> b (h w) c") for grid in (face, body))
        return rearrange(self.map(face, body), "b (h w) c -> b c h w", h=self.map.pos_embed.side)


class MivoloHead(nn.Module):
    """One Linear layer on the class token plus half the maximum over the patches of another, as VOLO has."""

    def __init__(self, num_features: int, outputs: int, bias: bool = True):
        super().__init__()
        self.head = Head(num_features, outputs, bias)
        self.aux_head = Head(num_features, outputs, bias)
        for layer in (self.head, self.aux_head):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if bias:
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, outputs) from (B, 1 + N, D), the class token first."""
        return self.head(tokens[:, 0]) + 0.5 * self.aux_head(tokens[:, 1:]).amax(dim=1)


class MivoloModel(AgeModel):
    """Tokens (B, 1 + N, D), the class token first, of the face or of the face and the body.

    A missing image is black, as in MiVOLO. In evaluation, an input that the whole batch lacks costs almost nothing: all
    inner cells of its map are equal, so an image of 3 x 3 cells is enough.
    """

    branches = {"face": ("conv1", "proj1"), "body": ("conv2", "proj2")}
    fusion = ("map",)
    variant: ClassVar[str]
    size: ClassVar[int]
    volo: Any
    black: Tensor

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            input: the model's inputs: ``both``, or only the face.
            pretrained: start from timm's ImageNet VOLO, which may download it.
            weights: start from this local file: MiVOLO (published or ours) or timm's VOLO, of one or two inputs and of
                any image size; heads are left out.
            drop_rate: dropout before the heads.
            drop_path_rate: stochastic depth.
        """

        input: Literal["face", "both"] = "both"
        pretrained: bool = False
        weights: str | None = None
        drop_rate: Probability = 0.0
        drop_path_rate: Probability = 0.0

    def __init__(self, config: Config, image_size: int):
        super().__init__(config, image_size)
        if image_size != self.size:
            sizes = ", ".join(f"mivolo_{self.variant}_{size}" for size in SIZES[self.variant])
            raise UserError(
                f"model mivolo_{self.variant}_{self.size} takes images of {self.size} pixels, not {image_size}; "
                f"there are {sizes}"
            )
        require_one_source(config.pretrained, config.weights)
        rates: dict[str, Any] = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
        self.volo = make_backbone(f"volo_{self.variant}_224", image_size, **rates)
        self.num_features = self.volo.num_features
        self.inputs = ("face", "body") if config.input == "both" else ("face",)
        if config.input == "both":
            self.volo.patch_embed = TwoStems(self.volo.patch_embed, image_size // PATCH)
        black = -torch.tensor(self.mean) / torch.tensor(self.std)
        self.register_buffer("black", black.view(1, 3, 1, 1), persistent=False)
        for name in self.inputs:  # the stems' cells of a black image, computed when the weights are final
            self.register_buffer(f"black_{name}", None, persistent=False)
        if config.weights:
            start_from(self.volo, read_state_dict(config.weights), source=config.weights)
        elif config.pretrained:
            size = image_size if timm.is_model(f"volo_{self.variant}_{image_size}") else 224
            donor = make_backbone(f"volo_{self.variant}_{size}", size, pretrained=True)
            start_from(self.volo, donor.state_dict(), source=f"volo_{self.variant}_{size}")

    def forward(self, face: Images, body: Images, batch: int) -> Tensor:
        """(B, 1 + N, D), the class token first; (m, 1 + N, D) for a model of faces only."""
        stem = self.volo.patch_embed
        if self.inputs == ("face",):
            grid = compute(stem, face, batch)
        else:
            grid = stem.join(self.map_of("face", face, batch), self.map_of("body", body, batch))
            grid = grid.expand(batch, -1, -1, -1)  # all samples are equal if the batch has neither image
        tokens = self.volo.forward_tokens(rearrange(grid, "b c h w -> b h w c"))
        return self.volo.head_drop(self.volo.norm(self.volo.forward_cls(tokens)))

    def map_of(self, name: str, images: Images, batch: int) -> Tensor:
        """The stem's map (B, C, S/8, S/8), or the cells (1, C, 3, 3) of black.

        The black image of all samples without one is computed once: with gradients as one more image of the batch,
            otherwise from its cells, which are returned if no sample has an image.
        """
        stem = getattr(self.volo.patch_embed, name)
        if images.rows.dtype != torch.bool and images.rows.shape[0] == batch:
            return stem(images.pixels)
        if torch.is_grad_enabled():  # the stem is called once on every rank, for any batch
            side = images.pixels.shape[-1]
            black = self.black.to(images.pixels.dtype).expand(1, -1, side, side)
            maps = stem(torch.cat([some_again(images.pixels, batch, others=1), black]))
            return scatter(maps[:-1], images.rows, batch, maps[-1:])
        known = getattr(self, f"black_{name}")
        cells = self.black_cells(name) if known is None else known
        if not images.rows.shape[0]:
            return cells
        return scatter(stem(images.pixels), images.rows, batch, self.spread(cells))

    def spread(self, cells: Tensor) -> Tensor:
        """(1, C, S/8, S/8) from the cells (1, C, 3, 3) of an image of one colour."""
        positions = self.volo.patch_embed.map.pos_embed
        return cells.flatten(2)[..., positions.cell].unflatten(2, (positions.side, positions.side))

    def black_cells(self, name: str) -> Tensor:
        """(1, C, 3, 3) of a black image by a stem: padding affects only the first cell of each side."""
        return getattr(self.volo.patch_embed, name)(self.black.expand(1, -1, 3 * PATCH, 3 * PATCH))

    @torch.no_grad()
    def keep_black_cells(self) -> None:
        """Compute the cells of a black image once, with final weights."""
        if len(self.inputs) > 1:
            for name in self.inputs:
                setattr(self, f"black_{name}", self.black_cells(name))

    def pooled(self, features: Tensor) -> Tensor:
        """(m, D) the class token."""
        return features[:, 0]

    def for_inference(self) -> "MivoloModel":
        return for_inference(self)

    def for_export(self) -> "MivoloModel":
        return for_export(self)

    def make_head(self, outputs: int, bias: bool = True) -> nn.Module:
        return MivoloHead(self.num_features, outputs, bias)


MIVOLO: dict[str, type[MivoloModel]] = {
    f"mivolo_{variant}_{size}": type(
        f"Mivolo{variant.upper()}At{size}", (MivoloModel,), {"variant": variant, "size": size, "__module__": __name__}
    )
    for variant, sizes in SIZES.items()
    for size in sizes
}
"""Every MiVOLO by its published name."""
