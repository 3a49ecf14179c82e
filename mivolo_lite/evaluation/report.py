"""``report.html``: an evaluation in one file that needs no network, and its plots as files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mivolo_lite.evaluation.groups import COMMON
from mivolo_lite.evaluation.headline import ADJUSTED, Measure, headline
from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.evaluation.plots import curves
from mivolo_lite.evaluation.report_sections import Result, sections
from mivolo_lite.files import write_text
from mivolo_lite.reporting.page import Cell, Notes, Page, Part, Plots, Section, Table, Tile, Tiles
from mivolo_lite.reporting.plot_folder import save_plots
from mivolo_lite.reporting.plots import Plot
from mivolo_lite.reporting.provenance import provenance

REPORT_FILE = "report.html"

_NOTES = (
    "Intervals hold 95 % of 1,000 bootstrap samples of the images; shares have exact ones. Where the labels say who is "
    "in an image, people are sampled with all of their images, and a share is taken as that of as many independent "
    f"images as vary alike; fewer than {LIMIT} people have no bootstrap interval.",
    "The gap is the MAE of the worst subgroup minus that of the best. It is never 0, not even between equals: sampling "
    "alone gives up to the number named so, which 95 % of random shuffles of the subgroups within each age bin stay "
    "below (of people in several images, 95 % of bootstrap samples). The intervals of a gap and of what is worst hold "
    "the true gap and the largest true MAE, whichever subgroups have them.",
    f"{ADJUSTED.capitalize()}: every subgroup is weighed as if it were as old as all images together, over the "
    f"ten-year bins of which all subgroups have {COMMON} images or more. Babies are easy, and a subgroup with many of "
    "them is not treated well for that reason.",
    "Gender and group are the labels of the data set, made by people or models, with their mistakes.",
)


def write_report(
    results: Sequence[Result],
    about: Mapping[str, str],
    out: Path | str,
    files: Sequence[str] = (),
    form: str = "png",
    warning: str = "",
) -> None:
    """Write ``report.html`` and ``plots/``.

    Args:
        results: of the same images.
        about: facts about the model and the data by name.
        out: an existing folder.
        files: names of the results in it, to link to.
        form: of the plots' files, one of ``plot_folder.FORMATS``.
        warning: a sentence above all figures.
    """
    parts = list(_parts(results, warning))
    page = Page("Evaluation", parts, provenance() | dict(about), files)
    save_plots(_plots_of(parts), Path(out), form)
    write_text(Path(out) / REPORT_FILE, page.html())


def _parts(results: Sequence[Result], warning: str) -> Iterator[Part]:
    notes = Section("How to read this", [Notes(_NOTES)], folded=True)
    if len(results) == 1:
        summary = Section("Summary", [Tiles([_tile(measure) for measure in headline(results[0].metrics)])], warning)
        yield Part([summary, *sections(results[0]), notes])
        return
    yield Part([_side_by_side(results, warning)])
    for result in results:
        yield Part(list(sections(result, folded=True)), f"Input: {result.name}")
    yield Part([notes])


def _tile(measure: Measure) -> Tile:
    return Tile(measure.name, measure.value, (f"{measure.of} {measure.interval}".strip(), measure.note, measure.better))


def _side_by_side(results: Sequence[Result], warning: str) -> Section:
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
    return Section("Summary", [table, Plots(plots)] if plots else [table], warning)


def _measure_cell(measure: Measure | None) -> Cell:
    if measure is None:
        return Cell("")
    return Cell(measure.value, f"{measure.of}\n{measure.interval}".strip())


def _plots_of(parts: Iterable[Part]) -> Iterator[Plot]:
    for part in parts:
        for section in part.sections:
            for block in section.blocks:
                if isinstance(block, Plots):
                    yield from block.plots
