"""Gradient norm at the features of each method's age loss, published and in its unit, relative to the gender's loss.

python benchmarks/loss_units.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeMethod, AgeSpan

SAMPLES, SPANS, WIDTHS, SEEDS = 512, (AgeSpan(), AgeSpan(0, 100), AgeSpan(16, 77)), (64, 1280), range(2)
OPTIONS = {"regression": [{}, {"loss": "l2"}, {"loss": "annealed", "normalise": False}], "forest": [{}, {"loss": "l2"}]}


def age_shares(span: AgeSpan) -> dict[str, Tensor]:
    """(A,) how common each age is: uniform, or bell-shaped as in data sets of faces."""
    ages = span.ages()
    width = (span.max_age - span.min_age) / 6
    return {"even": torch.ones(len(span)), "bell": torch.exp(-((ages - ages.mean()) ** 2) / 2 / width**2) + 0.01}


def ratio(method: AgeMethod, width: int, shares: Tensor) -> float:
    """The gradient norm of the age loss at random features, divided by that of the gender's cross entropy."""
    age = method.span.ages()[torch.multinomial(shares, SAMPLES, replacement=True)]
    method.fit_prior(torch.bincount((age - method.span.min_age).long(), minlength=len(method.span)))
    features, gender = torch.randn(SAMPLES, width).relu().requires_grad_(), torch.arange(SAMPLES) % 2
    losses = [
        method.loss(method(features), AgeRange.exact(age)).mean(),
        F.cross_entropy(nn.Linear(width, 2)(features), gender),
    ]
    of_age, of_gender = (torch.autograd.grad(loss, features)[0].norm() for loss in losses)
    return float(of_age / of_gender)


def measure(name: str, options: dict) -> tuple[list[float], list[float]]:
    """The ratios of the published loss, and those in its unit, over spans, ages, widths and seeds."""
    published, in_units = [], []
    for span in SPANS:
        for shares in age_shares(span).values():
            for width in WIDTHS:
                for seed in SEEDS:
                    torch.manual_seed(seed)
                    make_head = lambda outputs, bias=True, width=width: nn.Linear(width, outputs, bias)  # noqa: E731
                    method = METHODS[name](make_head, span, METHODS[name].Config(**options))
                    published.append(ratio(method, width, shares))
                    in_units.append(published[-1] / method.loss_unit)
    return published, in_units


def main() -> None:
    print("| method | published loss | in its unit |\n| --- | --- | --- |")
    for name in METHODS:
        for options in OPTIONS.get(name, [{}]):
            label = " ".join([name, *(f"{option}={value}" for option, value in options.items())])
            ranges = [f"{min(found):.3g} to {max(found):.3g}" for found in measure(name, options)]
            print(f"| {label} | {ranges[0]} | {ranges[1]} |", flush=True)


if __name__ == "__main__":
    main()
