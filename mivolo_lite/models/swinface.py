"""SwinFace (Qin et al., arXiv 2308.11509): a Swin-T with patches of 2 pixels; every task has its own attention.

``convert/swinface.py`` converts published files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einops import rearrange
from timm.models import checkpoint_seq
from torch import Tensor, nn

from mivolo_lite.images.packed import Images
from mivolo_lite.models.backbone import dry_run, make_backbone, require_one_source
from mivolo_lite.models.missing import compute
from mivolo_lite.models.multilevel import LevelModel, concat_levels
from mivolo_lite.models.weights import StateDict, load_backbone_state, read_checkpoint, state_dict_in, without_prefix
from mivolo_lite.ranges import Probability

PATCH = 2
WIDTH = 512

PREFIX = "model.swin."
"""Prefix of the backbone's parameters in an estimator of this package."""


class SwinFaceModel(LevelModel):
    """Four levels of a face: 192, 384 and 768 channels after each merging of patches, 768 at the end.

    At 112 pixels their grids are 28, 14, 7 and 7 cells a side.
    """

    backbone = "swin_tiny_patch4_window7_224"
    inputs = ("face",)
    mean = std = (0.5, 0.5, 0.5)
    swin: Any

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            pretrained: start from timm's Swin-T, which may download it.
            weights: start from the Swin in this local file: SwinFace (published or of this package) or timm's Swin-T.
            subnet_drop_rate: dropout in the tasks' subnets.
            drop_path_rate: stochastic depth of the Swin.
        """

        pretrained: bool = False
        weights: str | None = None
        subnet_drop_rate: Probability = 0.5
        drop_path_rate: Probability = 0.1

    def __init__(self, config: Config, image_size: int):
        super().__init__(config, image_size)
        require_one_source(config.pretrained, config.weights)
        options: dict[str, Any] = {"patch_size": PATCH, "global_pool": "", "drop_path_rate": config.drop_path_rate}
        self.swin = make_backbone(self.backbone, image_size, pretrained=config.pretrained, **options)
        dry_run(self.swin, image_size)
        self.swin.norm = nn.Identity()  # only the embedding has a norm after the last level, which is its own
        if config.weights:
            load_backbone_state(self.swin, swin_state(config.weights), config.weights)
        dims = [stage.downsample.reduction.out_features for stage in self.swin.layers[1:]]
        self.set_subnets([*dims, self.swin.num_features], WIDTH, config.subnet_drop_rate)

    def forward(self, face: Images, body: Images, batch: int) -> Tensor:
        """(m, 2112, 7, 7) at 112 pixels, of the present faces."""
        return compute(self, face, batch, self.levels)

    def levels(self, face: Tensor) -> Tensor:
        """(m, 2112, 7, 7) of normalised faces (m, 3, 112, 112)."""
        tokens, levels = self.swin.patch_embed(face), []
        for index, stage in enumerate(self.swin.layers):
            tokens = stage.downsample(tokens)  # the paper's stages end with what timm's begin with
            if index:
                levels.append(tokens)
            tokens = checkpoint_seq(stage.blocks, tokens) if stage.grad_checkpointing else stage.blocks(tokens)
        return concat_levels([rearrange(level, "b h w d -> b d h w") for level in (*levels, tokens)])


def swin_state(path: str | Path) -> StateDict:
    """The Swin's weights in a file of this package, of SwinFace or of timm, without layers after its blocks."""
    checkpoint = read_checkpoint(path)
    state = state_dict_in(checkpoint.get("state_dict_backbone", checkpoint))
    swin = without_prefix(state, PREFIX)
    return swin or {name: value for name, value in state.items() if not name.startswith(("norm.", "head.", "feature."))}
