"""``report.html``: an evaluation in one file that needs no network, and its plots as files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mivolo_lite.evaluation.headline import ADJUSTED, Measure, between, headline
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.plots import (
    age_plots,
    confidence_plots,
    curves,
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
from mivolo_lite.files import write_text
from mivolo_lite.reporting.page import (
    Card,
    Cards,
    Cell,
    Gallery,
    Image,
    Notes,
    Page,
    Part,
    Plots,
    Section,
    Table,
    Tables,
    Tile,
    Tiles,
)
from mivolo_lite.reporting.plot_folder import save_plots
from mivolo_lite.reporting.plots import Plot
from mivolo_lite.reporting.provenance import provenance

REPORT_FILE = "report.html"
WORST = 24

_NOTES = (
    "Intervals hold 95 % of 1,000 bootstrap samples of the images; shares have exact ones. Where one person is in "
    "several images they are too narrow, since images and not people were sampled.",
    "The gap is the MAE of the worst subgroup minus that of the best. It is never 0, not even between equals: 95 % of "
    "random shuffles of the subgroups within each age bin stay below what is expected from sampling alone.",
    f"{ADJUSTED.capitalize()}: every subgroup is weighed as if it were as old as all images together, over the "
    "ten-year bins that all subgroups have. Babies are easy, and a subgroup with many of them is not treated well for "
    "that reason.",
    "Gender and group are the labels of the data set, made by people or models, with their mistakes.",
)

_CHALLENGE = (
    "Whoever is estimated younger than the challenge age T is stopped and asked for proof. Our measure, not NIST's."
)
_NIST = "As NIST FATE defines them, with the groups of this data set in place of regions of birth."


@dataclass(frozen=True)
class Result:
    """What a report shows of one input of the model.

    Attributes:
        name: of the input, None where there is only one.
        metrics: from ``summarise``.
        predictions: what they are of.
        faces: ``data:`` addresses of the images of ``worst_rows``, empty for none; None to show none at all.
        corrupted: addresses of an image as it is, under ``clean``, and of what every corruption makes of it; empty to
            show none.
    """

    name: str | None
    metrics: dict
    predictions: Predictions
    faces: Sequence[str] | None = None
    corrupted: Mapping[str, Sequence[str]] = field(default_factory=dict)


def worst_rows(predictions: Predictions, count: int = WORST) -> np.ndarray:
    """Rows with the largest age errors, the worst first."""
    distance = np.abs(age_errors(predictions.age, predictions.age_lo, predictions.age_hi))
    order = np.argsort(-distance, kind="stable")  # NaN sorts to the end
    return order[: min(count, int((~np.isnan(distance)).sum()))]


def write_report(
    results: Sequence[Result], about: Mapping[str, str], out: Path | str, files: Sequence[str] = (), form: str = "png"
) -> None:
    """Write ``report.html`` and ``plots/``.

    Args:
        results: of the same images.
        about: what was evaluated: facts by name.
        out: an existing folder.
        files: names of the results in it, to link to.
        form: of the plots' files, one of ``plot_folder.FORMATS``.
    """
    parts = list(_parts(results))
    page = Page("Evaluation", parts, provenance() | dict(about), files)
    save_plots(_plots_of(parts), Path(out), form)
    write_text(Path(out) / REPORT_FILE, page.html())


def _parts(results: Sequence[Result]) -> Iterator[Part]:
    notes = Section("How to read this", [Notes(_NOTES)], folded=True)
    if len(results) == 1:
        summary = Section("Summary", [Tiles([_tile(measure) for measure in headline(results[0].metrics)])])
        yield Part([summary, *_sections(results[0]), notes])
        return
    yield Part([_side_by_side(results)])
    for result in results:
        yield Part(list(_sections(result, folded=True)), f"Input: {result.name}")
    yield Part([notes])


def _tile(measure: Measure) -> Tile:
    return Tile(measure.name, measure.value, (f"{measure.of} {measure.interval}".strip(), measure.note, measure.better))


def _side_by_side(results: Sequence[Result]) -> Section:
    """All inputs in one table, and their curves in the same plots."""
    columns = [{measure.name: measure for measure in headline(result.metrics)} for result in results]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = []
    for name in names:
        measures = [column.get(name) for column in columns]
        better = next(measure.better for measure in measures if measure)
        rows.append([Cell(name, better), *map(_measure_cell, measures)])
    plots = list(curves({str(result.name): result.metrics for result in results if result.metrics["n"]}))
    table = Table(["", *(str(result.name) for result in results)], rows)
    return Section("Summary", [table, Plots(plots)] if plots else [table])


def _measure_cell(measure: Measure | None) -> Cell:
    if measure is None:
        return Cell("")
    return Cell(measure.value, f"{measure.of}\n{measure.interval}".strip())


def _sections(result: Result, folded: bool = False) -> Iterator[Section]:
    """Those that have anything to show.

    Args:
        result: of one input.
        folded: whether a narrow screen shows the titles alone, also of the first ones.
    """
    metrics, end = result.metrics, "" if result.name is None else f"_{result.name}"

    def plots(plotted: Iterable[Plot], small: bool = False) -> list[Plots]:
        named = [replace(plot, name=f"{plot.name}{end}") for plot in plotted]
        return [Plots(named, small)] if named else []

    robustness = metrics.get("robustness")
    sections = [
        Section("Age", [*plots(age_plots(metrics, result.predictions)), *_tables(age_table(metrics))], folded=folded),
        Section(
            "Subgroups",
            [
                *plots(subgroup_plots(metrics["gaps"]["gender x group"])),
                *_tables(*(subgroup_table(metrics, subgroup) for subgroup in ("gender", "group"))),
            ],
            folded=folded,
        ),
        Section("Gender x group", _tables(subgroup_table(metrics, "gender x group")), folded=True),
        Section("Age groups", _tables(age_group_table(metrics["classes"])), folded=True),
        Section("Gender", plots(gender_plots(metrics["gender"])), folded=True),
        Section("Confidence", plots(confidence_plots(metrics)), folded=True),
        Section("Verification", plots(verification_plots(metrics.get("verification", {}))), folded=True),
        Section("Challenge ages", plots(threshold_plots(metrics["thresholds"])), _CHALLENGE, folded=True),
        Section("NIST measures", _tables(nist_table(metrics["nist"])), _NIST, folded=True),
    ]
    if robustness:
        blocks = [*plots(robustness_plots(robustness), small=True), robustness_table(robustness)]
        sections.append(Section("Robustness", [*blocks, *_corrupted(result)], _about(robustness), folded=True))
    if result.faces:
        lead = "Wrong labels and bad crops show here first."
        sections.append(Section("Largest errors", [Gallery(list(_faces(result)))], lead, folded, len(result.faces)))
    yield from (section for section in sections if section.blocks)


def _tables(*tables: Table | None) -> list[Tables]:
    filled = [table for table in tables if table]
    return [Tables(filled)] if filled else []


def _about(robustness: dict) -> str:
    clean = f"{robustness['clean_mae']:.2f} {between(robustness['clean_mae_interval'])}"
    words = (
        f"The same {robustness['samples']} images, corrupted in ten ways at five strengths each. The dashed line is "
        f"the MAE of the images as they are, {clean}; the band is the 95 % interval."
    )
    if robustness["mean_relative_degradation"] is None:
        return words
    interval = between(robustness["mean_relative_degradation_interval"], "+.1%")
    return (
        f"{words} Mean relative degradation {robustness['mean_relative_degradation']:+.1%} {interval}: the mean over "
        "all 50 of MAE / clean MAE - 1. It says how an error grows, not how large it is: read it together with the MAE."
    )


def _corrupted(result: Result) -> list[Cards]:
    """One image as the model sees it, as it is and at strengths 1, 3 and 5."""
    cards = [
        Card([Image(face) for face in faces[::2] if face], name if name == "clean" else f"{name}, strengths 1, 3, 5")
        for name, faces in result.corrupted.items()
    ]
    return [Cards(cards)] if cards else []


def _faces(result: Result) -> Iterator[Image]:
    predictions = result.predictions
    for row, face in zip(worst_rows(predictions, len(result.faces)), result.faces, strict=True):
        truth = predictions.true_age(row).replace(";", " to ")
        words = f"estimated {predictions.age[row]:.0f}, true {truth}"
        yield Image(face, [words], predictions.key[row], missing="no image")


def _plots_of(parts: Iterable[Part]) -> Iterator[Plot]:
    for part in parts:
        for section in part.sections:
            for block in section.blocks:
                if isinstance(block, Plots):
                    yield from block.plots
