"""A comparison as files: a page, JSON, CSV, a LaTeX table, and plots with the curves of all evaluations."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mivolo_lite.csv_file import written_csv
from mivolo_lite.evaluation.compare import (
    Run,
    compare_runs,
    coverage_in_words,
    measured,
    read_runs,
    sampled_in_words,
    verdict,
)
from mivolo_lite.evaluation.headline import between, figure
from mivolo_lite.evaluation.metric_names import METRICS
from mivolo_lite.evaluation.plots import curves
from mivolo_lite.evaluation.short_names import distinct_labels
from mivolo_lite.evaluation.summary import age_curves
from mivolo_lite.files import result_folder, write_json, write_text
from mivolo_lite.reporting.page import Cell, Notes, Page, Part, Plots, Section, Table
from mivolo_lite.reporting.plot_folder import save_plots
from mivolo_lite.reporting.provenance import provenance

RESULT_FILES = JSON_FILE, CSV_FILE, LATEX_FILE, PAGE_FILE = (
    "comparison.json", "comparison.csv", "comparison.tex", "report.html",
)  # fmt: skip
_COLUMNS = (
    "evaluation", "metric", "n", "value", "lower", "upper",
    "difference", "difference_lower", "difference_upper", "difference_n", "more_than_noise",
)  # fmt: skip


def write_comparison(folders: Sequence[Path | str], out: Path | str, figures: str = "png") -> dict:
    """Compare evaluations, and write ``comparison.json``, ``.csv`` and ``.tex``, ``report.html`` and ``plots/``.

    Args:
        folders: as for ``compare``.
        out: folder for the files; created if it is missing.
        figures: format of the plots' files: png, pdf or svg.

    Returns:
        What ``compare`` returns.

    Raises:
        UserError: as ``compare``; ``out`` has other results, or cannot be written.
    """
    out, runs = Path(out), read_runs(folders)
    comparison = compare_runs(runs)
    labels = distinct_labels([run.name for run in runs])
    plots = list(curves({label: age_curves(run.predictions) for label, run in zip(labels, runs, strict=True)}))
    result_folder(out, RESULT_FILES)
    save_plots(plots, out, figures)
    _write_csv(comparison, out / CSV_FILE)
    write_text(out / LATEX_FILE, latex_table(comparison, labels))
    sections = [Section("Cautions", [Notes(comparison["cautions"])])] if comparison["cautions"] else []
    sections += [*_differences(comparison, labels), *([Section("Curves", [Plots(plots)])] if plots else [])]
    sections.append(Section("Evaluations", [_evaluations(runs, labels)]))
    page = Page("Comparison", [Part(sections)], provenance(), (JSON_FILE, CSV_FILE, LATEX_FILE))
    write_text(out / PAGE_FILE, page.html())
    write_json(out / JSON_FILE, comparison)
    return comparison


def latex_table(comparison: dict, labels: Sequence[str]) -> str:
    """The comparison as a LaTeX table with ``booktabs``; a star marks differences beyond noise."""
    metrics = measured(comparison)
    titles = " & ".join(rf"{_tex(METRICS[metric].heading)} & difference" for metric in metrics)
    lines = [
        r"% \usepackage{booktabs}; brackets are 95 % intervals",
        f"% * more than noise: intervals of differences hold {coverage_in_words(comparison)}",
        *(f"% {caution}" for caution in comparison["cautions"]),
        rf"\begin{{tabular}}{{l{'rr' * len(metrics)}}}",
        r"\toprule",
        rf"Evaluation & {titles} \\",
        r"\midrule",
    ]
    for label, row in zip(labels, comparison["rows"], strict=True):
        cells = " & ".join(" & ".join(_latex_cells(row[metric], metric)) for metric in metrics)
        lines.append(rf"{_tex(label)} & {cells} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cells(cell: dict | None, metric: str) -> tuple[str, str]:
    if cell is None:
        return "--", "--"
    form, difference = METRICS[metric].form, cell.get("difference")
    value = f"{cell['value']:{form}} {between(cell['interval'], form)}".rstrip()
    if difference is None:
        return _tex(value), "--"
    star = "$^*$" if difference["more_than_noise"] else ""
    ends = between(difference["interval"], f"+{form}")
    return _tex(value), _tex(f"{difference['value']:+{form}} {ends}".rstrip()) + star


def _tex(text: str) -> str:
    """A text as LaTeX, with minus signs."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escaped = "".join(special.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def _write_csv(comparison: dict, path: Path) -> None:
    with written_csv(path) as writer:
        writer.writerow(_COLUMNS)
        for row in comparison["rows"]:
            for metric in measured(comparison):
                if row[metric]:
                    fields = [row["name"], metric, *_csv_fields(row[metric])]
                    writer.writerow(fields + [""] * (len(_COLUMNS) - len(fields)))


def _csv_fields(cell: dict) -> list:
    difference, fields = cell.get("difference"), [cell["n"], *_with_ends(cell)]
    if difference:
        fields += [*_with_ends(difference), difference["n"], "yes" if difference["more_than_noise"] else "no"]
    return fields


def _with_ends(estimate: dict) -> list[str]:
    """A value and the ends of its interval, empty for too few images."""
    lower, upper = estimate["interval"] or ("", "")
    return [number if number == "" else f"{number:.6f}" for number in (estimate["value"], lower, upper)]


def _differences(comparison: dict, labels: Sequence[str]) -> Iterator[Section]:
    for metric in measured(comparison):
        name = METRICS[metric]
        rows = [[label, *_cells(row[metric], metric)] for label, row in zip(labels, comparison["rows"], strict=True)]
        lead = f"{name.better.capitalize()}. Differences are to the first, paired by image; their intervals hold "
        lead += f"{coverage_in_words(comparison)}."
        if people := sampled_in_words(comparison):
            lead += f" People are sampled: {people}."
        yield Section(name.heading, [Table(("", "n", "value", "difference", ""), rows)], lead)


def _cells(cell: dict | None, metric: str) -> list[str | int | Cell]:
    if cell is None:
        return ["", "", "", ""]
    form, difference = METRICS[metric].form, cell.get("difference")
    value = figure(cell["value"], cell["interval"], form)
    if difference is None:
        return [cell["n"], value, "", ""]
    return [cell["n"], value, figure(difference["value"], difference["interval"], f"+{form}"), verdict(cell, metric)]


def _evaluations(runs: Sequence[Run], labels: Sequence[str]) -> Table:
    rows = [
        [label, run.name, run.about.get("checkpoint", ""), run.about.get("data", "")]
        for label, run in zip(labels, runs, strict=True)
    ]
    return Table(("", "evaluation", "checkpoint", "data"), rows)
