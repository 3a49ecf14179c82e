"""Compares an exported file's answers with those of its estimator."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.formats import Precision
from mivolo_lite.inference.graph import AGE, MIXED, PROBABILITY, Graph, answers

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""An exported file as a function from a graph's inputs to its outputs, in their orders."""

BATCHES = (1, 2, 5)

CASES = {None: "", MIXED: ", each image missing in some"}

YEARS = {"fp32": 1e-3, "fp16": 0.5}
"""The largest allowed difference of an age in years, by precision."""

OTHERS = {"fp32": 1e-3, "fp16": 0.05}
"""The same for a probability, a number or a coordinate of a vector, relative to the largest value if that exceeds 1."""

STEP = 1.0
"""Years between two answers of a method with whole years, of which rounding may select either."""


def require_parity(estimator: Estimator, graph: Graph, run: Run, precision: Precision) -> list[str]:
    """Compare at batch sizes of 1, 2 and 5, with all images and without each of them.

    Args:
        estimator: the exported one.
        graph: made from it.
        run: the exported file.
        precision: of the backbone, which sets the bounds.

    Returns:
        A line for each case, with the largest differences.

    Raises:
        UserError: an answer differs by more than its bound.
    """
    lines = []
    for batch, absent in _cases(estimator):
        inputs = graph.example(batch, absent)
        exported = dict(zip(graph.output_names, run(inputs), strict=True))
        case = f"batch {batch}{CASES.get(absent, f' without {absent}')}"
        differences = _differences(estimator, _expected(estimator, inputs), exported)
        lines.append(f"{case}: " + ", ".join(f"{name} {value:.1e}" for name, (value, _) in differences.items()))
        for name, (value, kind) in differences.items():
            if not value <= (bound := kind[precision]):
                raise UserError(f"export: {case}: {name} differs by {value:.3g}, more than {bound}; nothing is written")
    return lines


def _cases(estimator: Estimator) -> Iterator[tuple[int, str | None]]:
    for batch in BATCHES:
        yield batch, None
        if len(estimator.inputs) > 1:
            yield from ((batch, absent) for absent in estimator.inputs)
    if len(estimator.inputs) > 1:
        yield max(BATCHES), MIXED


@torch.inference_mode()
def _expected(estimator: Estimator, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    names = estimator.inputs
    present: Sequence[Tensor | None] = inputs[len(names) :] or [None]
    images = {
        name: Images.of(pixels, seen) for name, pixels, seen in zip(names, inputs[: len(names)], present, strict=True)
    }
    return answers(estimator, estimator(**images, batch=len(inputs[0])))


def _differences(
    estimator: Estimator, expected: dict[str, Tensor], exported: dict[str, Tensor]
) -> dict[str, tuple[float, dict[str, float]]]:
    """The largest difference of each answer, and its bounds by precision.

    Ages in whole years, such as medians, jump where rounding decides. For these, the mean must be within the bound, and
    the answer within one more year.
    """
    differences = {name: (_largest(value, exported[name]), OTHERS) for name, value in expected.items() if name != AGE}
    age, years = float((expected[AGE] - exported[AGE]).abs().max()), YEARS
    if getattr(estimator.method.config, "decode", "expectation") != "expectation":
        ages = estimator.method.span.ages()
        means = [(answer[PROBABILITY] * ages).sum(dim=1) for answer in (expected, exported)]
        differences["age_mean"] = float((means[0] - means[1]).abs().max()), YEARS
        years = {precision: bound + STEP for precision, bound in YEARS.items()}
    return {AGE: (age, years)} | differences


def _largest(expected: Tensor, exported: Tensor) -> float:
    """The largest difference, relative to the largest answer if that exceeds 1; NaN if an answer is NaN."""
    scale = max(1.0, float(expected.abs().max()))
    return float((expected - exported).abs().max()) / scale
