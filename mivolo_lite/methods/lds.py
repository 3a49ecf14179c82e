"""Label distribution smoothing: sample weights against an uneven distribution of ages."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mivolo_lite.errors import UserError

Kernel = Literal["gaussian", "triang", "laplace"]
Reweight = Literal["sqrt_inv", "inverse"]


def kernel_window(kernel: Kernel, ks: int, sigma: float) -> Tensor:
    """(ks,) float32 smoothing window with a maximum of 1.

    The Gaussian is the published one: a unit impulse of length ``ks`` under a filter that mirrors at its borders and
    stops at 4 sigma. If the window is short for its sigma, it is flatter than exp(-d^2 / 2 sigma^2), since mirror
    images add up: ks=5, sigma=2 gives 0.858, 0.946, 1, 0.946, 0.858.
    """
    if ks < 1 or ks % 2 == 0:
        raise UserError(f"lds_ks={ks}: the smoothing window needs a middle, so give an odd number of years")
    distance = (torch.arange(ks, dtype=torch.float64) - ks // 2).abs()
    if kernel == "triang":
        return (1 - distance / ((ks + 1) / 2)).float()
    if kernel == "laplace":
        return (-distance / sigma).exp().float()
    reach = int(4 * sigma + 0.5)
    mirrors = torch.arange(-(reach // ks) - 1, reach // ks + 2) * ks
    offset = distance[:, None] + mirrors
    window = torch.where(offset.abs() <= reach, (-0.5 * (offset / sigma).square()).exp(), 0.0).sum(1)
    return (window / window.max()).float()


def smoothed_weights(age_counts: Tensor, kernel: Kernel, ks: int, sigma: float, reweight: Reweight) -> Tensor:
    """Weight of a sample by its age, one over the smoothed density, 1 on average over the samples counted.

    Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021. Ages without samples, which the paper leaves
    open, have at most the weight of the rarest age.

    Args:
        age_counts: (A,) samples of each age.
        kernel: shape of the smoothing window.
        ks: length of the window in years, odd; 1 for no smoothing.
        sigma: width of the Gaussian or Laplace window in years.
        reweight: smooth the square roots of the counts, or the counts clipped to 5..1000.

    Returns:
        (A,) float32 weights.
    """
    counts = age_counts.float().cpu()
    density = counts.sqrt() if reweight == "sqrt_inv" else counts.clamp(5, 1000)
    smooth = F.conv1d(density[None, None], kernel_window(kernel, ks, sigma)[None, None], padding=ks // 2)[0, 0]
    weight = 1 / smooth.clamp(min=smooth[counts > 0].min())
    return weight * counts.sum() / (weight * counts).sum()
