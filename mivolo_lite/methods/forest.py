"""Deep regression forests: soft decision trees on the features, with Gaussian leaves fitted by EM."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.methods.distribution import class_bounds
from mivolo_lite.methods.interface import AgeEstimate, AgeMethod, AgeSpan, MakeHead
from mivolo_lite.ranges import float_range, int_range

YEARS = 100.0
"""The unit of the L2 loss in years, as published."""

_MOST_KEPT = 1e8
"""Largest buffer of outputs for a refit, over all ranks: 400 MB."""


def log_normal(age: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log density per year of ages under Gaussians; the shapes broadcast."""
    return -0.5 * ((age - mean).square() / variance + variance.log() + math.log(2 * math.pi))


def normal_mass(lo: Tensor, hi: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Probability of lo..hi under Gaussians, exact in both tails, unlike ``torch.special.ndtr`` in float32; the shapes
    broadcast."""
    width = (2 * variance).sqrt()
    start, end = (lo - mean) / width, (hi - mean) / width
    above = start > 0
    nearer, farther = torch.where(above, start, -end), torch.where(above, end, -start)
    return (torch.erfc(nearer) - torch.erfc(farther)) / 2


def cluster_ages(age_counts: Tensor, ages: Tensor, clusters: int, init: str) -> tuple[Tensor, Tensor]:
    """Means and variances of groups of the training ages, youngest first.

    Args:
        age_counts: (A,) samples of each age.
        ages: (A,) years.
        clusters: how many groups, L.
        init: "quantile" for equally full groups, "kmeans" to improve them by at most 100 of Lloyd's iterations.

    Returns:
        (L,) means and (L,) variances; an empty group keeps its mean and gets the variance 0.
    """
    share = age_counts.double().cumsum(0) / age_counts.sum()
    middle = (torch.arange(clusters, device=ages.device) + 0.5) / clusters
    mean = ages[torch.searchsorted(share, middle.double()).clamp(max=len(ages) - 1)]

    for _ in range(100 if init == "kmeans" else 0):
        weight, size = _assign(age_counts, ages, mean)
        earlier, mean = mean, torch.where(size > 0, (weight * ages[:, None]).sum(0) / size.clamp(min=1), mean)
        if mean.equal(earlier):  # converged
            break
    weight, size = _assign(age_counts, ages, mean)
    return mean, (weight * (ages[:, None] - mean).square()).sum(0) / size.clamp(min=1)


def _assign(age_counts: Tensor, ages: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """(A, L) samples of each age in the group of the nearest mean (L,), and (L,) samples of each group."""
    nearest = (ages[:, None] - mean).abs().argmin(-1)
    weight = F.one_hot(nearest, len(mean)) * age_counts[:, None]
    return weight, weight.sum(0)


def refit_leaves(
    log_routing: Tensor, age: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, iterations: int, floor: float
) -> tuple[Tensor, Tensor]:
    """Refit the leaves by the paper's variational update (EM with the routing as mixing weights)::

        zeta_il = pi_l(x_i) N(y_i; mu_l, v_l) / sum_m pi_m(x_i) N(y_i; mu_m, v_m)
        mu_l = sum_i zeta_il y_i / sum_i zeta_il        v_l = sum_i zeta_il (y_i - mu_l)^2 / sum_i zeta_il

    A leaf that no sample reaches keeps its Gaussian (in the published code, its mean becomes 0), and variances are at
    least the floor (the published code adds 0.03^2 years^2). So the likelihood neither decreases nor diverges.

    Args:
        log_routing: (S, T, L) log probability of each leaf.
        age: (S,) years.
        weight: (S,) 1 for samples that count, 0 for others.
        mean: (T, L) years.
        variance: (T, L) years squared.
        iterations: number of updates.
        floor: smallest variance in years squared.

    Returns:
        The new mean and variance, (T, L) each.
    """
    age, weight = age[:, None, None], weight[:, None, None]
    for _ in range(iterations):
        share = (log_routing + log_normal(age, mean, variance)).softmax(-1) * weight
        size = share.sum(0)
        reached = size > torch.finfo(size.dtype).eps
        size = torch.where(reached, size, 1.0)
        mean = torch.where(reached, (share * age).sum(0) / size, mean)
        spread = (share * (age - mean).square()).sum(0) / size
        variance = torch.where(reached, spread.clamp(min=floor), variance)
    return mean, variance


def gather(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all ranks, in the order of the ranks. All ranks must have equally many."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


class Forest(AgeMethod):
    """Trees of sigmoid splits over sampled outputs, a Gaussian of age in every leaf.

    Shen, Guo, Wang, Zhao, Wang and Yuille, "Deep Regression Forests for Age Estimation", CVPR 2018. Each of T trees of
    depth h has 2^(h-1) - 1 splits, each reading one of M head outputs f (sampled without replacement, for every tree
    anew), and L = 2^(h-1) leaves::

        s_n = sigmoid(f_n), the probability of going left        pi_l = product of s_n or 1 - s_n along the path
        p_t(y) = sum_l pi_l N(y; mu_l, v_l)        age_t = sum_l pi_l mu_l        age = mean of the age_t
        nll = -mean_t log p_t(y)    (paper)        l2 = mean_t ((y - age_t) / 100)^2 / 2    (released code)

    The code's L2 loss sums over the trees and its gradient averages over them; here both average. The densities are per
    year, which adds log 100 to the paper's and keeps the loss positive. Outputs that several trees read get the sum of
    their gradients (the code keeps the last one).

    Gradients train the splits only. The leaves start as clusters of the training ages (quantiles, or k-means as in the
    paper, which is not verified) and are refitted every ``refit_every`` steps by ``refit_leaves`` on the outputs
    of the latest training samples with an exactly known age, gathered from all ranks and kept in a ring of fixed size.
    All of that is in the state dict, so a resumed run continues exactly.

    With ``nll`` a range costs minus the mean log mass of the trees inside it, with the outermost whole years reaching
    to infinity; with ``l2`` half the squared distance to its nearer edge, in the same unit as for an exact age.

    Shapes: features (B, D), output f (B, M), loss (B,).
    """

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            loss: nll (paper) or l2 (released code).
            trees: number of trees (T).
            depth: levels of a tree, counting the leaves (h).
            outputs: head outputs that the splits are sampled from (M).
            init: leaves from k-means or from quantiles of the training ages.
            refit_every: optimizer steps between two refits of the leaves.
            refit_iterations: fixed-point iterations of a refit.
            refit_samples: latest training samples, over all ranks, that a refit uses.
            variance_floor: smallest variance of a leaf in years squared.
            seed: of the sampling of outputs.
        """

        loss: Literal["nll", "l2"] = "nll"
        trees: Annotated[int, int_range(1, 1000)] = 5
        depth: Annotated[int, int_range(2, 16)] = 6
        outputs: Annotated[int, int_range(1, 10**5)] = 128
        init: Literal["kmeans", "quantile"] = "kmeans"
        refit_every: Annotated[int, int_range(1)] = 50
        refit_iterations: Annotated[int, int_range(1, 10**4)] = 20
        refit_samples: Annotated[int, int_range(1, 10**6)] = 2048
        variance_floor: Annotated[float, float_range(1e-6, 1e6)] = 1.0
        seed: Annotated[int, int_range(0, 2**32 - 1)] = 0

        def __post_init__(self) -> None:
            splits = 2 ** (self.depth - 1) - 1
            if splits > self.outputs:
                raise UserError(
                    f"depth={self.depth}, outputs={self.outputs}: a tree of this depth has {splits} splits; "
                    "give so many outputs, or less depth"
                )
            if self.refit_samples * self.outputs > _MOST_KEPT:
                raise UserError(
                    f"refit_samples={self.refit_samples}, outputs={self.outputs}: give less, "
                    f"so that the two multiply to {_MOST_KEPT:.0e} at most"
                )

    defining = ("trees", "depth", "outputs", "seed")
    averages = False  # each model has its own leaves
    # A run with `init_from` fills its own ring, whose size, `refit_samples`, may differ.
    loss_buffers = ("ring_output", "ring_age", "ring_weight", "samples", "steps")

    units: Tensor
    leaf_mean: Tensor
    leaf_variance: Tensor
    ring_output: Tensor
    ring_age: Tensor
    ring_weight: Tensor
    samples: Tensor
    steps: Tensor

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        leaves = 2 ** (config.depth - 1)
        self.head = make_head(config.outputs)
        generator = torch.Generator().manual_seed(config.seed)
        draws = [torch.randperm(config.outputs, generator=generator)[: leaves - 1] for _ in range(config.trees)]
        self.register_buffer("units", torch.stack(draws))
        self.register_buffer("leaf_mean", torch.zeros(config.trees, leaves))
        self.register_buffer("leaf_variance", torch.ones(config.trees, leaves))
        self.register_buffer("ring_output", torch.zeros(config.refit_samples, config.outputs))
        self.register_buffer("ring_age", torch.zeros(config.refit_samples))
        self.register_buffer("ring_weight", torch.zeros(config.refit_samples))
        self.register_buffer("samples", torch.tensor(0))
        self.register_buffer("steps", torch.tensor(0))
        self._steps = 0  # a copy on the host, so that counting does not wait for the device
        self.fit_prior(torch.ones(len(span)))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._steps = int(self.steps)

    def fit_prior(self, age_counts: Tensor) -> None:
        age_counts = age_counts.to(self.leaf_mean.device)
        ages = self.span.ages(age_counts.device)
        mean, variance = cluster_ages(age_counts, ages, self.leaf_mean.shape[1], self.config.init)
        self.leaf_mean.copy_(mean.expand_as(self.leaf_mean))
        self.leaf_variance.copy_(variance.clamp(min=self.config.variance_floor).expand_as(self.leaf_variance))

    def forward(self, features: Any) -> Tensor:
        """(B, M) arguments of the splits."""
        return self.head(features)

    def log_routing(self, output: Tensor) -> Tensor:
        """(B, T, L) float32 log pi: for each tree, the log probability of reaching each leaf, leftmost leaf first."""
        split = output.float()[:, self.units]
        left, right = F.logsigmoid(split), F.logsigmoid(-split)
        path = torch.zeros_like(split[..., :1])
        for level in range(self.config.depth - 1):
            nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
            path = torch.stack([path + left[..., nodes], path + right[..., nodes]], -1).flatten(-2)
        return path

    def year_edges(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) years in which the classes first..last (B,) begin and end; the span's own ends are open."""
        lo, hi = first + self.span.min_age - 0.5, last + self.span.min_age + 0.5
        return (
            torch.where(first == 0, -torch.inf, lo),
            torch.where(last == len(self.span) - 1, torch.inf, hi),
        )

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        log_routing = self.log_routing(output)
        first, last = class_bounds(age, self.span)
        age = self.span.clamp(age)
        if self.config.loss == "l2":
            tree_age = (log_routing.exp() * self.leaf_mean).sum(-1)
            nearest = tree_age.detach().clamp(age.lo[:, None], age.hi[:, None])
            return ((tree_age - nearest) / YEARS).square().mean(-1) / 2
        lo, hi = (edge[:, None, None] for edge in self.year_edges(first, last))
        mass = normal_mass(lo, hi, self.leaf_mean, self.leaf_variance)
        log_mass = mass.clamp(min=torch.finfo(mass.dtype).tiny).log()
        log_density = log_normal(age.lo[:, None, None], self.leaf_mean, self.leaf_variance)
        evidence = torch.where((age.lo == age.hi)[:, None, None], log_density, log_mass)
        return -(log_routing + evidence).logsumexp(-1).mean(-1)

    @property
    def loss_unit(self) -> float:
        """A typical error times the distance between leaves: both are proportional to the span."""
        return 1.0 if self.config.loss == "nll" else self.span.typical_error**2 / 3 / YEARS**2

    def estimate(self, output: Tensor) -> AgeEstimate:
        """The mean over the trees, and their mixture's mass in each year of the span."""
        routing = self.log_routing(output).exp()
        mean = (routing * self.leaf_mean).sum(-1).mean(-1)
        index = torch.arange(len(self.span), device=output.device)
        lo, hi = (edge[:, None, None] for edge in self.year_edges(index, index))
        mass = normal_mass(lo, hi, self.leaf_mean, self.leaf_variance)
        with torch.autocast(output.device.type, enabled=False):
            probability = routing.flatten(1) @ mass.flatten(1).T / self.config.trees
        return AgeEstimate(mean, probability)

    @torch.no_grad()
    def refit(self, output: Tensor, age: AgeRange, sample: Tensor) -> None:
        self._add_to_ring(output, age, sample)
        self._steps += 1
        self.steps.fill_(self._steps)
        if self._steps % self.config.refit_every == 0:
            self._refit_leaves()

    def _add_to_ring(self, output: Tensor, age: AgeRange, sample: Tensor) -> None:
        """Keep the outputs of all ranks' samples with an exactly known age, in place of the oldest ones."""
        exact = age.known & (age.lo == age.hi)
        labels = torch.stack([self.span.clamp(age).lo, exact.float()], -1)
        rows = gather(torch.cat([output.detach().float(), labels], -1))
        rows = rows[gather(sample).argsort()]  # sorted by number, so that they do not depend on the ranks
        rows = rows[rows[:, -1] > 0][-len(self.ring_age) :]
        slots = (self.samples + torch.arange(len(rows), device=rows.device)) % len(self.ring_age)
        self.ring_output[slots], self.ring_age[slots], self.ring_weight[slots] = rows[:, :-2], rows[:, -2], 1.0
        self.samples += len(rows)

    def _refit_leaves(self) -> None:
        options = self.config
        mean, variance = refit_leaves(
            self.log_routing(self.ring_output),
            self.ring_age,
            self.ring_weight,
            self.leaf_mean,
            self.leaf_variance,
            options.refit_iterations,
            options.variance_floor,
        )
        self.leaf_mean.copy_(mean)
        self.leaf_variance.copy_(variance)
