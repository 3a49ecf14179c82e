"""Mixup, CutMix and C-Mixup: two samples of a batch become one, and both labels count by their shares.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, blend two images with the weight ``share``,
sampled from Beta(alpha, alpha); Yun et al., "CutMix", ICCV 2019, put a rectangle of one into the other. The loss of a
mixed image is ``share * loss(label) + (1 - share) * loss(partner's label)``, for every method and task. Yao et
al., "C-Mixup: Improving Generalization in Regression", NeurIPS 2022, sample a partner of about the same age, and
interpolate the two ages.

Whether and how a sample is mixed is a function of (seed, epoch, sample). Its partner is sampled from its micro-batch,
so it also depends on the size of the micro-batches. A partner has the same inputs as the sample, and both ages are
known or neither. Without a partner, a sample is not mixed. Shares are at least 1/2, as in MixMatch
(Berthelot et al., NeurIPS 2019): a sample is mostly itself, and over all pairs the set of mixed images is the same.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch, Mixing
from mivolo_lite.randomness import uniform_of
from mivolo_lite.ranges import Probability, float_range, int_range

_MIX = 2  # hashed like ``_DROP`` and ``_AUGMENT`` in ``loading.dataset``


@dataclass
class MixupConfig:
    """Mixup and CutMix of training samples, with timm's names.

    Attributes:
        mixup_alpha: alpha of mixup's Beta distribution, 0.2 for example; 0 for none.
        cutmix_alpha: the same of CutMix, 1 for example; 0 for none.
        prob: probability that a sample is mixed.
        switch_prob: of CutMix instead of mixup where both have an alpha.
        off_epoch: passes over a data set after which its samples are no longer mixed; null for never.
        bandwidth: C-Mixup: standard deviation in years of the Gaussian of the age difference by which a partner is
            sampled, 3 for example; null for any partner.
    """

    mixup_alpha: Annotated[float, float_range(0, 1e3)] = 0.0
    cutmix_alpha: Annotated[float, float_range(0, 1e3)] = 0.0
    prob: Probability = 1.0
    switch_prob: Probability = 0.5
    off_epoch: Annotated[int, int_range(0)] | None = None
    bandwidth: Annotated[float, float_range(0, 1e3, low_open=True)] | None = None

    def __post_init__(self) -> None:
        if self.bandwidth is not None and not (self.mixup_alpha or self.cutmix_alpha):
            raise UserError("data.mixup.bandwidth: nothing is mixed; give mixup_alpha or cutmix_alpha as well")

    @property
    def is_on(self) -> bool:
        return bool(self.prob and (self.mixup_alpha or self.cutmix_alpha))


class Chances(NamedTuple):
    """(B,) uniform numbers for each decision about a sample."""

    mix: np.ndarray
    switch: np.ndarray
    share: np.ndarray
    partner: np.ndarray
    y: np.ndarray
    x: np.ndarray


class Mixup:
    """Chooses the partners and shapes.

    Args:
        config: its options.
        seed: of the random numbers.
    """

    def __init__(self, config: MixupConfig, seed: int):
        self.config, self.seed = config, seed

    def __call__(self, batch: Batch, epochs: np.ndarray) -> Batch:
        """The batch with its ``mixing``, or unchanged if no sample is mixed. ``mix`` changes the images.

        Args:
            batch: on the CPU.
            epochs: (B,) the epoch of each sample.
        """
        samples = batch.sample.numpy()
        chance = Chances(*uniform_of(self.seed, epochs, samples, _MIX, np.arange(len(Chances._fields))[:, None]))
        nearest, has_partner = self._partners(batch, chance.partner)
        is_mixed = has_partner & (chance.mix < self.config.prob)
        if self.config.off_epoch is not None:
            is_mixed &= epochs < self.config.off_epoch
        if not is_mixed.any():
            return batch
        partner = torch.from_numpy(np.where(is_mixed, nearest, np.arange(len(batch))))
        weight, box = self._shapes(chance, is_mixed, batch.image_size)
        own_share = 1 - weight * ((box[1] - box[0]) * (box[3] - box[2]) / batch.image_size**2)
        share = torch.from_numpy(own_share.astype(np.float32))
        age = None if self.config.bandwidth is None else interpolate(batch.age, partner, share)
        boxes = torch.from_numpy(box.T.astype(np.int64))
        return replace(batch, mixing=Mixing(partner, share, torch.from_numpy(weight.astype(np.float32)), boxes, age))

    def _partners(self, batch: Batch, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B,) the row of each sample's partner, and whether there is one."""
        pattern = torch.stack([batch.age.known, *(batch.seen([name]) for name in batch.inputs)]).numpy()
        is_candidate = (pattern[:, :, None] == pattern[:, None, :]).all(0) & ~np.eye(len(batch), dtype=bool)
        logits = np.zeros(is_candidate.shape)
        if self.config.bandwidth is not None:
            age = batch.age.middle.numpy().astype(np.float64)
            logits = -(((age[:, None] - age) / self.config.bandwidth) ** 2) / 2
        logits = np.where(is_candidate, logits, -np.inf)
        largest = np.maximum(logits.max(1, keepdims=True), np.finfo(np.float64).min)  # the nearest age has weight 1
        cumulative = np.exp(logits - largest).cumsum(1)
        total = cumulative[:, -1:]
        below = np.minimum(chance[:, None] * total, np.nextafter(total, 0))
        return (cumulative > below).argmax(1), total[:, 0] > 0

    def _shapes(self, chance: Chances, is_mixed: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """(B,) the weight of the partner's pixels, and (4, B) the box of these: top, bottom, left, right."""
        mixup, cutmix = self.config.mixup_alpha, self.config.cutmix_alpha
        is_cut = (chance.switch < self.config.switch_prob) if mixup and cutmix else np.full(len(is_mixed), bool(cutmix))
        alpha = np.where(is_cut, cutmix, mixup)
        share = betaincinv(alpha, alpha, chance.share)
        share = np.maximum(share, 1 - share)
        # A box around a point of the image, clipped to it, as timm's.
        half = side * np.sqrt(1 - share) / 2
        ends = [np.rint(side * place + sign * half) for place in (chance.y, chance.x) for sign in (-1, 1)]
        cut = np.clip(np.stack(ends), 0, side)
        full = np.array([0, side, 0, side])[:, None]
        weight = np.where(is_mixed, np.where(is_cut, 1.0, 1 - share), 0.0)
        return weight, np.where(is_cut, cut, full)


def interpolate(age: AgeRange, partner: Tensor, share: Tensor) -> AgeRange:
    """Ages (B,) interpolated between samples and partners: ends of ranges, and standard deviations if both are
    known."""

    def between(value: Tensor) -> Tensor:
        return torch.where(share == 1, value, share * value + (1 - share) * value[partner])

    std = age.std
    if std is not None:
        std = torch.where((std > 0) & (std[partner] > 0) | (share == 1), between(std), 0.0)
    return AgeRange(between(age.lo), between(age.hi), age.known, std)


def mix(batch: Batch) -> tuple[Batch, list[tuple[Batch, Tensor | float]]]:
    """The batch with mixed images, and its targets, each with its weight (B,) in the loss."""
    mixing = batch.mixing
    if mixing is None:
        return batch, [(batch, 1.0)]
    images: dict[str, Any] = {name: _mix_images(getattr(batch, name), mixing, len(batch)) for name in batch.inputs}
    labels, partner = batch, batch.labels(mixing.partner)
    if mixing.age is not None:
        labels, partner = (replace(image_labels, age=mixing.age) for image_labels in (labels, partner))
    return replace(batch, **images), [(labels, mixing.share), (partner, 1 - mixing.share)]


def _mix_images(images: Images, mixing: Mixing, batch: int) -> Images:
    """uint8 images, each with its partner's pixels in the box, by their weight."""
    pixels, rows = images
    if not len(rows):
        return images
    slot = torch.zeros(batch, dtype=torch.int64, device=rows.device).index_copy_(
        0, rows, torch.arange(len(rows), device=rows.device)
    )
    weight = mixing.weight[rows].view(-1, 1, 1, 1) * _inside(mixing.box[rows], pixels.shape[-1])
    other = pixels[slot[mixing.partner[rows]]]
    blended = torch.lerp(pixels.float(), other.float(), weight).round_()
    return Images(torch.empty_like(pixels).copy_(blended), rows)  # in the memory format of the others


def _inside(box: Tensor, side: int) -> Tensor:
    """(n, 1, S, S) bool: the pixels within boxes (n, 4)."""
    place = torch.arange(side, device=box.device)
    top, bottom, left, right = box[:, :, None].unbind(1)
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
