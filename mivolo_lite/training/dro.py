"""Group distributionally robust optimisation: subgroups with large losses get larger weights.

Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, minimise the loss under the worst
weighting ``q`` of the subgroups, with one exponentiated-gradient step on ``q`` for each step on the weights. They
sample all subgroups equally often. Here the order stays the same, and a sample of subgroup ``g`` has the weight
``q[g]`` divided by that subgroup's share of the training data. There are two more differences. Losses count as relative
differences from their mean, so that a step size means the same for years and for nats. And ``penalty`` draws ``q`` to
the shares of the training data: otherwise a subgroup with worse labels or harder faces would get all of the weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.ranges import float_range, int_range
from mivolo_lite.training.subgroups import UNKNOWN, By, subgroups_of


@dataclass
class DroConfig:
    """Group distributionally robust optimisation of the age loss.

    Attributes:
        by: the labels that tell subgroups apart, ``age`` (ten-year bins), ``gender``, ``group``, ``age_gender`` or
            ``age_group``, or ``none``.
        fewest: training samples that make a subgroup; those of smaller ones count as without this method.
        step_size: of the weights of the subgroups.
        penalty: on the weights' divergence from the training data; at rest, a subgroup of twice the mean loss weighs
            ``exp(1 / penalty)`` times as much as one of the mean. 0 for the published method.
        adjustment: added to a subgroup's loss, over the root of its number of training samples (their ``C``).
    """

    by: By = "none"
    fewest: Annotated[int, int_range(1)] = 30
    step_size: Annotated[float, float_range(0, 1e3, low_open=True)] = 0.01
    penalty: Annotated[float, float_range(0)] = 2.0
    adjustment: Annotated[float, float_range(0)] = 0.0


class GroupDro:
    """Weights of the subgroups, equal on every rank, updated after every optimizer step by its losses.

    Args:
        columns, groups: labels of all samples, as from ``concat_labels``.
        weight: (N,) other weights of the samples, None if all are equal.
        config: of the method.
        device: of the losses.
        frequency: (N,) how often each sample is used; None if all are used equally often.

    Attributes:
        names: of the K subgroups.
        share: (K,) of the training data, by weight. Samples in no subgroup have a factor of 1.
        sums: (3, K + 1) observed by this rank since the last step.
        log_weight: (K,) logarithms of the factors of each subgroup's losses, ``q / share``.

    Raises:
        UserError: fewer than two subgroups are large enough, or no age is known.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        groups: Sequence[str],
        weight: Tensor | None,
        config: DroConfig,
        device: torch.device | str,
        frequency: np.ndarray | None = None,
    ):
        if np.isnan(columns["age_lo"]).all():
            raise UserError(
                f"optim.dro.by {config.by}: it weighs losses of ages, and no training sample has an age; set it to none"
            )
        subgroup, self.names = subgroups_of(columns, groups, config.by, config.fewest)
        if len(self.names) < 2:
            raise UserError(
                f"optim.dro.by {config.by}: {len(self.names)} subgroups have {config.fewest} training samples or "
                "more, and it takes two; set another label, or none, or a smaller optim.dro.fewest"
            )
        self.config = config
        self.weight = torch.ones(len(subgroup), device=device) if weight is None else weight.to(device)
        weights = self.weight.cpu().numpy() if frequency is None else self.weight.cpu().numpy() * frequency
        # Samples in no subgroup have a column of their own, the last one.
        width = len(self.names) + 1
        subgroup = np.where(subgroup == UNKNOWN, len(self.names), subgroup)
        mass = np.bincount(subgroup, weights, width)[:-1]
        count = np.bincount(subgroup, minlength=width)[:-1]
        self.share = torch.tensor(mass / mass.sum(), dtype=torch.float32, device=device)
        self.adjustment = torch.tensor(config.adjustment / np.sqrt(count), dtype=torch.float32, device=device)
        self.subgroup = torch.from_numpy(subgroup).to(device)
        self.log_weight = torch.zeros_like(self.share)
        self.sums = torch.zeros(3, width, device=device)

    @property
    def q(self) -> Tensor:
        """(K,) the weighting of the subgroups, a distribution."""
        return self.share * self.log_weight.exp()

    def factor(self, sample: Tensor) -> Tensor:
        """(B,) factors of the age losses of samples (B,)."""
        return torch.cat([self.log_weight.exp(), self.share.new_ones(1)])[self.subgroup[sample]]

    def observe(self, loss: Tensor, age: AgeRange, sample: Tensor, share: Tensor | float = 1.0) -> None:
        """Add a micro-batch of this rank: unweighted age losses (B,) of samples (B,), each with its share of a mixed
        image."""
        weight = torch.where(age.known, share * self.weight[sample], 0.0)
        loss = torch.where(age.known, loss.detach(), 0.0)
        rows = torch.stack([weight, weight * loss, weight * loss.abs()])
        subgroup = F.one_hot(self.subgroup[sample], self.sums.shape[1])
        self.sums = self.sums + (rows[..., None] * subgroup).sum(1)

    def update(self, sums: Tensor) -> None:
        """One step on ``q`` from all losses since the last step. A subgroup without any keeps its weight.

        Args:
            sums: sum of ``self.sums`` over all ranks.
        """
        count, loss, size = sums[:, :-1]
        self.sums = torch.zeros_like(self.sums)
        factor, tiny = self.log_weight.exp(), torch.finfo(loss.dtype).tiny
        total = (factor * count).sum().clamp(min=tiny)
        mean, scale = (factor * loss).sum() / total, ((factor * size).sum() / total).clamp(min=tiny)
        excess = (loss / count.clamp(min=tiny) - mean) / scale
        gain = torch.where(count > 0, excess + self.adjustment - self.config.penalty * self.log_weight, 0.0)
        log_q = self.share.log() + self.log_weight + self.config.step_size * gain
        self.log_weight = log_q.log_softmax(0) - self.share.log()

    def weights(self) -> dict[str, float]:
        """The factor of each subgroup's losses, by name."""
        return dict(zip(self.names, self.log_weight.exp().tolist(), strict=True))

    def state(self) -> dict[str, float]:
        """The state for a checkpoint: ``log_weight`` by name."""
        return dict(zip(self.names, self.log_weight.tolist(), strict=True))

    def load(self, state: Mapping[str, float]) -> None:
        """Load what ``state`` returned. Raises UserError if it has other subgroups."""
        if set(state) != set(self.names):
            raise UserError(
                f"--resume: the checkpoint weighs {', '.join(state) or 'no subgroups'}, this run "
                f"{', '.join(self.names)}; set optim.dro.by as it was, or start a new run"
            )
        self.log_weight = torch.tensor([state[name] for name in self.names], device=self.log_weight.device)
