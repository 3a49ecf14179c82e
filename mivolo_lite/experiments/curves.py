"""The curves of trainings side by side: validation error, losses, learning rate and speed, from their logs."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.metric_names import METRICS
from mivolo_lite.evaluation.short_names import distinct_labels
from mivolo_lite.experiments.smoothing import smoothed
from mivolo_lite.files import result_folder, write_text
from mivolo_lite.reporting.page import Page, Part, Plots, Section, Table
from mivolo_lite.reporting.plot_folder import save_plots
from mivolo_lite.reporting.plots import COLOURS, Plot, legend
from mivolo_lite.reporting.provenance import provenance
from mivolo_lite.training.json_lines import LOG_FILE, read_records
from mivolo_lite.training.run_summary import best_evaluation, runs_in

PAGE_FILE = "report.html"
_PLOTS = (
    *(("val", name, f"Validation {metric.title}", False) for name, metric in METRICS.items()),
    ("train", "loss", "Training loss", True),
    ("train", "age_loss", "Age loss", True),
    ("train", "gender_loss", "Gender loss", True),
    ("train", "lr", "Learning rate", False),
    ("train", "grad_norm", "Gradient norm", True),
    ("train", "samples_per_second", "Samples a second", True),
)
"""Kind of record, name in it, title, and whether it jumps from batch to batch, so that its line is smoothed."""
Log = Mapping[str, list[dict[str, Any]]]
"""The records of a run by their kind, ``train`` and ``val``, in the order of their steps."""


def write_curves(folders: Sequence[Path | str], out: Path | str, figures: str = "png") -> None:
    """Write ``report.html`` and ``plots/`` with the curves of one run or several.

    Args:
        folders: of runs, complete or at work, or of several runs, as ``seeds`` and ``crossval`` make.
        out: folder for the files; made where it is missing.
        figures: format of the plots' files: png, pdf or svg.

    Raises:
        UserError: a folder holds no log, or none of them a step; ``out`` holds other results, or cannot be written.
    """
    out, runs = Path(out), [run for folder in folders for run in runs_in(Path(folder))]
    labels = distinct_labels([str(run) for run in runs]) if len(runs) > 1 else [runs[0].absolute().name]
    logs = {label: read_log(run) for label, run in zip(labels, runs, strict=True)}
    if not any(any(log.values()) for log in logs.values()):
        raise UserError(f"{runs[0] / LOG_FILE}: holds no step yet; wait for the first lines of the log")
    plots = list(_curves(logs))
    result_folder(out, (PAGE_FILE,))
    save_plots(plots, out, figures)
    sections = [Section("Best", [_best(logs)]), Section("Curves", [Plots(plots)])]
    write_text(out / PAGE_FILE, Page("Training curves", [Part(sections)], provenance()).html())


def read_log(run: Path) -> Log:
    """The log of a run, without records where it has no step yet. Raises UserError where there is none."""
    path = run / LOG_FILE
    try:
        records = list(read_records(path)) if path.is_file() else None
    except OSError:
        records = None
    if records is None:
        raise UserError(f"{run}: no {LOG_FILE} here that can be read; give the folder of a run")
    steps = [record for record in records if isinstance(record.get("step"), int)]
    return {kind: [record for record in steps if record.get("kind") == kind] for kind in ("train", "val")}


def _curves(logs: Mapping[str, Log]) -> Iterator[Plot]:
    for kind, name, title, noisy in _PLOTS:
        curves = {label: _points(log[kind], name) for label, log in logs.items()}
        if any(curves.values()):
            yield Plot(f"{kind}_{name}", f"{title}, by step", partial(_draw, curves, title, noisy))


def _points(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    points = [(record["step"], record.get(name)) for record in records]
    return [(step, value) for step, value in points if isinstance(value, int | float)]


def _draw(curves: Mapping[str, list[tuple[float, float]]], title: str, noisy: bool, ax: Axes) -> None:
    for index, (label, points) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        steps, values = [step for step, _ in points], [value for _, value in points]
        if noisy:
            ax.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
        line = list(smoothed(values)) if noisy else values
        marker = "o" if len(values) == 1 or len(values) < 50 and not noisy else ""
        ax.plot(steps, line, color=colour, linewidth=1.5, label=label, marker=marker, markersize=3)
    ax.set_xlabel("step")
    ax.set_ylabel(title)
    if len(curves) > 1:
        legend(ax)


def _best(logs: Mapping[str, Log]) -> Table:
    """Of each run the evaluation whose weights are its ``best``."""
    rows = []
    for label, log in logs.items():
        best = best_evaluation(log["val"])
        if not best:
            # Its data has no ages, or the model answered none.
            reason = "not evaluated yet" if log["train"] else "no step yet"
            reason = "evaluated, without ages to compare" if log["val"] else reason
            rows.append([label, "", "", "", reason])
            continue
        rows.append(
            [label, *(_figure(best.get(name), metric.form) for name, metric in METRICS.items()), f"{best['step']}"]
        )
    return Table(("run", *(metric.title for metric in METRICS.values()), "step"), rows)


def _figure(value: Any, form: str) -> str:
    return f"{value:{form}}" if isinstance(value, int | float) else ""
