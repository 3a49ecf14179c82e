"""The sections of a report about one input of the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mivolo_lite.evaluation.headline import between
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.plots import (
    age_plots,
    confidence_plots,
    gender_plots,
    robustness_plots,
    subgroup_plots,
    threshold_plots,
    verification_plots,
)
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.evaluation.report_tables import (
    age_group_table,
    age_table,
    nist_table,
    robustness_table,
    subgroup_table,
)
from mivolo_lite.reporting.page import Block, Card, Cards, Gallery, Image, Plots, Section, Table, Tables
from mivolo_lite.reporting.plots import Plot

WORST = 24

_CHALLENGE = (
    "Whoever is estimated younger than the challenge age T is stopped and asked for proof. Our measure, not NIST's."
)
_NIST = "As NIST FATE defines them, with the groups of this data set in place of regions of birth."


@dataclass(frozen=True)
class Result:
    """The content of a report about one input of the model.

    Attributes:
        name: of the input, None where there is only one.
        metrics: from ``summarise``.
        predictions: the predictions that the metrics are of.
        faces: ``data:`` addresses of the images of ``worst_rows``, an empty text for a missing one; or empty.
        corrupted: addresses of an image under ``clean``, and of its corrupted versions by corruption; or empty.
    """

    name: str | None
    metrics: dict
    predictions: Predictions
    faces: Sequence[str] = ()
    corrupted: Mapping[str, Sequence[str]] = field(default_factory=dict)


def worst_rows(predictions: Predictions, count: int = WORST) -> np.ndarray:
    """(n,) at most ``count`` rows with the largest age errors, the worst first."""
    distance = np.abs(age_errors(predictions.age, predictions.age_lo, predictions.age_hi))
    order = np.argsort(-distance, kind="stable")  # NaN sorts to the end
    return order[: min(count, int((~np.isnan(distance)).sum()))]


def sections(result: Result, folded: bool = False) -> Iterator[Section]:
    """The sections with content.

    Args:
        result: of one input.
        folded: whether a narrow screen shows only the titles, also of the first sections.
    """
    candidates = (*_errors(result, folded), *_confidence(result), *_robustness(result), *_largest(result, folded))
    return (section for section in candidates if section.blocks)


def _errors(result: Result, folded: bool) -> Iterator[Section]:
    metrics = result.metrics
    curves = _plots(result, age_plots(metrics, result.predictions))
    yield Section("Age", [*curves, *_tables(age_table(metrics))], folded=folded)
    heat_map = _plots(result, subgroup_plots(metrics["gaps"]["gender x group"]))
    tables = _tables(*(subgroup_table(metrics, name) for name in ("gender", "group")))
    yield Section("Subgroups", [*heat_map, *tables], folded=folded)
    yield Section("Gender x group", _tables(subgroup_table(metrics, "gender x group")), folded=True)
    yield Section("Age groups", _tables(age_group_table(metrics["classes"])), folded=True)
    yield Section("Gender", _plots(result, gender_plots(metrics["gender"])), folded=True)


def _confidence(result: Result) -> Iterator[Section]:
    metrics = result.metrics
    yield Section("Confidence", _plots(result, confidence_plots(metrics)), folded=True)
    yield Section("Verification", _plots(result, verification_plots(metrics["verification"])), folded=True)
    yield Section("Challenge ages", _plots(result, threshold_plots(metrics["thresholds"])), _CHALLENGE, folded=True)
    yield Section("NIST measures", _tables(nist_table(metrics["nist"])), _NIST, folded=True)


def _robustness(result: Result) -> Iterator[Section]:
    robustness = result.metrics.get("robustness")
    if robustness:
        plots = _plots(result, robustness_plots(robustness), small=True)
        blocks: list[Block] = [*plots, robustness_table(robustness), *_corrupted(result)]
        yield Section("Robustness", blocks, _about(robustness), folded=True)


def _largest(result: Result, folded: bool) -> Iterator[Section]:
    if result.faces:
        lead = "Wrong labels and bad crops show here first."
        yield Section(
            "Largest errors", [Gallery(list(_faces(result.predictions, result.faces)))], lead, folded, len(result.faces)
        )


def _plots(result: Result, plots: Iterable[Plot], small: bool = False) -> list[Plots]:
    """A block of plots, with the input in their file names; empty without plots."""
    end = "" if result.name is None else f"_{result.name}"
    named = [replace(plot, name=f"{plot.name}{end}") for plot in plots]
    return [Plots(named, small)] if named else []


def _tables(*tables: Table | None) -> list[Tables]:
    filled = [table for table in tables if table]
    return [Tables(filled)] if filled else []


def _about(robustness: dict) -> str:
    clean, interval = f"{robustness['clean_mae']:.2f}", between(robustness["clean_mae_interval"])
    if interval:
        clean = f"{clean} {interval}; the band is the 95 % interval"
    words = (
        f"The same {robustness['samples']} images, corrupted in ten ways at five strengths each. The dashed line is "
        f"the MAE of the images as they are, {clean}."
    )
    if robustness["mean_relative_degradation"] is None:
        return words
    interval = between(robustness["mean_relative_degradation_interval"], "+.1%")
    return (
        f"{words} Mean relative degradation {robustness['mean_relative_degradation']:+.1%} {interval}: the mean over "
        "all 50 of MAE / clean MAE - 1. It says how an error grows, not how large it is: read it together with the MAE."
    )


def _corrupted(result: Result) -> list[Cards]:
    """One image as the model sees it, clean and at strengths 1, 3 and 5."""
    cards = [
        Card([Image(face) for face in faces[::2] if face], name if name == "clean" else f"{name}, strengths 1, 3, 5")
        for name, faces in result.corrupted.items()
    ]
    return [Cards(cards)] if cards else []


def _faces(predictions: Predictions, faces: Sequence[str]) -> Iterator[Image]:
    for row, face in zip(worst_rows(predictions, len(faces)), faces, strict=True):
        truth = predictions.true_age(row).replace(";", " to ")
        words = f"estimated {predictions.age[row]:.0f}, true {truth}"
        yield Image(face, [words], predictions.key[row], missing="no image")
