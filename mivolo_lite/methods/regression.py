"""Regression of one number: MiVOLO's normalised age or raw years, with LDS weights and the annealed SwinFace loss."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.distribution import class_bounds
from mivolo_lite.methods.interface import AgeEstimate, AgeMethod, AgeSpan, MakeHead
from mivolo_lite.methods.lds import Kernel, Reweight, smoothed_weights
from mivolo_lite.ranges import float_range, int_range


def head_unit(span: AgeSpan) -> int:
    """The head's raw value for a normalised output of 1: the power of two nearest to the years.

    A power of two, so that a published head that is multiplied and divided by it is unchanged bit by bit.
    """
    return 2 ** round(math.log2(span.max_age - span.min_age))


class Regression(AgeMethod):
    """One output without activation, years = output * scale + center.

    * ``normalise``: MiVOLO (Kuprashevich and Tolstykh, arXiv 2307.04616). Its code takes the midrange, not the mean:
      center = (max + min) / 2 and scale = max - min, so outputs lie in [-0.5, 0.5] over the span. The head's raw values
      are in about years, by ``head_unit``: an AdamW step changes a linear layer's output by about the learning rate
      times the sum of its inputs in any unit, and in spans that is 120 times as many years.
    * otherwise raw years: scale = 1, and center is the mean training age.

    In both cases a new head starts at the mean training age. Starting at the midrange of UTKFace's ages, 27 years off,
    costs most of the first epoch.

    With e = output - target in the unit of the output, and d the same error in years::

        l1       |e|
        l2       e^2                       (MiVOLO; that it used LDS weights with it is recalled, not verified)
        huber    e^2 / 2 beta if |e| < beta else |e| - beta / 2, beta given in years
        annealed (1 - t)/2 d^2 + t (1 - exp(-d^2 / 2 sigma^2)), t = progress of the training from 0 to 1

    The annealed loss is SwinFace's (Qin et al., arXiv 2308.11509) and is always in years; on a normalised output its
    gradient is therefore larger by the factor ``max - min``. ``normalise: false`` is SwinFace's own setting.

    The target of an age range is its edge nearer to the prediction; inside the range the loss is 0. MiVOLO rounds ages
    to whole years; here they are not rounded.

    Shapes: features (B, D), output (B, 1), loss (B,).
    """

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            loss: l1, l2, huber or annealed.
            normalise: predict MiVOLO's normalised age rather than raw years.
            huber_beta: error in years from which the Huber loss is linear.
            annealed_sigma: width of the annealed loss at the end of the training, in years.
            lds: weight samples by label distribution smoothing (LDS).
            lds_kernel: shape of the smoothing window.
            lds_ks: length of the smoothing window in years, odd.
            lds_sigma: width of the Gaussian or Laplace window in years.
            lds_reweight: weight by the inverse square root of the counts, or by the inverse.
        """

        loss: Literal["l1", "l2", "huber", "annealed"] = "l1"
        normalise: bool = True
        huber_beta: Annotated[float, float_range(0.01, 1000)] = 1.0
        annealed_sigma: Annotated[float, float_range(0.01, 1000)] = 3.0
        lds: bool = False
        lds_kernel: Kernel = "gaussian"
        lds_ks: Annotated[int, int_range(1, 999)] = 5
        lds_sigma: Annotated[float, float_range(0.01, 1000)] = 2.0
        lds_reweight: Reweight = "sqrt_inv"

    defining = ("normalise",)
    loss_buffers = ("age_weight",)

    center: Tensor
    start: Tensor
    age_weight: Tensor

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        self.head = make_head(1)
        self.scale = float(span.max_age - span.min_age) if config.normalise else 1.0
        self.head_unit = head_unit(span) if config.normalise else 1
        midrange = (span.max_age + span.min_age) / 2
        self.register_buffer("center", torch.tensor(midrange))
        self.register_buffer("start", torch.tensor(0.0))
        self.register_buffer("age_weight", torch.ones(len(span)))

    def fit_prior(self, age_counts: Tensor) -> None:
        options = self.config
        counts = age_counts.to(self.center.device).float()
        mean = (counts * self.span.ages(counts.device)).sum() / counts.sum()
        if options.normalise:
            self.start.copy_((mean - self.center) / self.scale)
        else:
            self.center.copy_(mean)
        if options.lds:
            weight = smoothed_weights(
                age_counts, options.lds_kernel, options.lds_ks, options.lds_sigma, options.lds_reweight
            )
            self.age_weight.copy_(weight)

    @property
    def balancing_option(self) -> str | None:
        return "lds" if self.config.lds else None

    def forward(self, features: Any) -> Tensor:
        """(B, 1), in units of ``scale`` years from ``center``."""
        return self.head(features) / self.head_unit + self.start

    def years(self, output: Tensor) -> Tensor:
        """(B,) float32 years from the output (B, 1)."""
        return output.float().squeeze(-1) * self.scale + self.center

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        years = self.years(output)
        age = self.span.clamp(age)
        target = years.detach().clamp(age.lo, age.hi)
        first, last = class_bounds(age, self.span)
        return self.age_weight[(first + last) // 2] * self.error_loss(years - target)

    def error_loss(self, error: Tensor) -> Tensor:
        """(B,) loss of errors (B,) in years."""
        options = self.config
        if options.loss == "annealed":
            squared, end = error.square(), min(max(self.progress, 0.0), 1.0)
            return (1 - end) / 2 * squared - end * torch.expm1(-squared / (2 * options.annealed_sigma**2))
        if options.loss == "l1":
            return error.abs() / self.scale
        if options.loss == "l2":
            return (error / self.scale).square()
        beta = options.huber_beta / self.scale
        return F.smooth_l1_loss(error / self.scale, torch.zeros_like(error), reduction="none", beta=beta)

    @property
    def loss_unit(self) -> float:
        """The slope of the loss over the head's raw value, at a typical error."""
        error, options = self.span.typical_error, self.config
        slope = {
            "l1": 1 / self.scale,
            "huber": min(1.0, error / options.huber_beta) / self.scale,
            "l2": 2 * error / self.scale**2,
            "annealed": error,
        }[options.loss]
        return slope * self.scale / self.head_unit

    def estimate(self, output: Tensor) -> AgeEstimate:
        """Ages in years; ``age``, unlike ``mean``, is at least 0, as in MiVOLO's evaluation."""
        mean = self.years(output)
        return AgeEstimate(mean, age=mean.clamp(min=0))
