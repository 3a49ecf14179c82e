"""Evaluates every checkpoint on every data set: a matrix of errors, with links to the evaluation of each pair."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mivolo_lite.card import CARD_FILE, Card, locate, require_files
from mivolo_lite.credentials import without_credentials
from mivolo_lite.csv_file import written_csv
from mivolo_lite.distributed.accelerator import join_processes
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.about import DOUBTS, TRAINED_ON, about_model, cautions_by_name
from mivolo_lite.evaluation.evaluate import (
    MATRIX_CSV_FILE,
    MATRIX_FILE,
    PAGE_FILE,
    RESULT_FILES,
    evaluate,
    read_input_sets,
)
from mivolo_lite.evaluation.headline import between
from mivolo_lite.evaluation.metric_names import HIGHER, LOWER, METRICS, MetricName
from mivolo_lite.evaluation.predict import no_image
from mivolo_lite.evaluation.short_names import short_names
from mivolo_lite.files import result_folder, write_json, write_text
from mivolo_lite.reporting.page import Cell, Page, Part, Section, Table
from mivolo_lite.reporting.plot_folder import clear_plots
from mivolo_lite.reporting.provenance import provenance
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.exclude import count_left_out
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.selection import load_selected
from mivolo_lite.wording import images_of

_SHARES = {
    "cs5": (METRICS["cs5"], "n"),
    "gender_accuracy": (METRICS["gender_accuracy"], "gender_n"),
    "age_group_accuracy": (MetricName("age-group accuracy", HIGHER, ".1%"), "age_group_n"),
    "mean_relative_degradation": (
        MetricName("mean relative degradation on corrupted images", LOWER, "+.1%"), "degradation_n",
    ),
}  # fmt: skip
"""Further tables of the page, if any pair has the figure, and the key of its number of images."""

_LEAD = (
    "Rows are checkpoints, columns data sets; more colour is worse. Intervals hold 95 % of bootstrap samples of the "
    "images, or of people where the labels say who they are; shares have exact ones. An age known as a range counts by "
    "its distance to it, so data sets of ranges look easier."
)
_MARKED = f"* {TRAINED_ON}"


def evaluate_all(
    checkpoints: Sequence[str], data: Sequence[str], out: Path | str, cache: CacheConfig | None = None, **options: Any
) -> dict:
    """Evaluate every checkpoint on every data set, each pair into a folder of its own, ``CHECKPOINT_on_DATA``.

    Args:
        checkpoints: ``best`` folders of runs.
        data: folders of indexed shards, or their URLs.
        out: folder for the pairs' folders, ``matrix.json``, ``matrix.csv`` and ``report.html``.
        cache, options: of ``evaluate``.

    Returns:
        What ``matrix.json`` holds: ``data`` by name (``folder``, ``digest``, ``samples``) and ``rows``, one for each
        checkpoint, or for each of the ``inputs`` that it is shown: ``checkpoint`` (its name), ``folder``, ``inputs``
        and ``cells`` by the name of the data: ``n``, ``mae``, ``cs5``, ``bias`` and the other figures that the
        evaluation has, with their intervals and numbers of images, the ``doubts`` of the evaluation, its ``tta`` where
        that is not ``none``, and the ``folder`` of its results.

    Raises:
        UserError: before any evaluation, if a folder is missing or given twice, or a checkpoint is damaged, does not
            take the ``inputs``, or a data set has no image for it; and as ``evaluate``.
    """
    out = Path(out)
    names, sets = short_names(checkpoints, "--checkpoint", r"/best/*$"), short_names(data, "--data")
    for folder in checkpoints:
        require_files(locate(folder), CARD_FILE)
    indices = [load_selected(folder, cache, options.get("folds"), options.get("exclude")) for folder in data]
    for folder in checkpoints:
        _require_usable(folder, indices, options.get("inputs"))
    is_main = join_processes().is_main_process
    if is_main:
        result_folder(out, RESULT_FILES)
        clear_plots(out)
    rows: list[dict[str, Any]] = []
    for name, checkpoint in zip(names, checkpoints, strict=True):
        rows += _rows(name, checkpoint, dict(zip(sets, data, strict=True)), out, cache=cache, **options)
    described = {
        name: {"folder": without_credentials(str(folder)), "digest": index.digest, "samples": len(index)}
        | ({"excluded": count_left_out(index)} if options.get("exclude") else {})
        for name, folder, index in zip(sets, data, indices, strict=True)
    }
    matrix = {"data": described, "rows": rows}
    if is_main:
        _write_csv(matrix, out / MATRIX_CSV_FILE)
        has_reports = options.get("report", True)
        cards = {name: Card.load(locate(folder)) for name, folder in zip(names, checkpoints, strict=True)}
        write_text(out / PAGE_FILE, _page(matrix, cards, has_reports).html())
        write_json(out / MATRIX_FILE, matrix)
    return matrix


def _rows(name: str, checkpoint: str, data: Mapping[str, str], out: Path, **options: Any) -> list[dict[str, Any]]:
    """Evaluate a checkpoint on every data set, by their names: one row for each of the ``inputs``."""
    cells_by_inputs: dict[str | None, dict[str, Any]] = {}
    for data_name, folder in data.items():
        pair = f"{name}_on_{data_name}"
        metrics = evaluate(checkpoint, folder, out / pair, **options)
        described = {key: metrics["data"][key] for key in DOUBTS if key in metrics["data"]}
        if "tta" in metrics:
            described["tta"] = metrics["tta"]
        for inputs, section in metrics.get("inputs", {None: metrics}).items():
            cells_by_inputs.setdefault(inputs, {})[data_name] = _cell(section) | described | {"folder": pair}
    return [
        {"checkpoint": name, "folder": str(checkpoint), "inputs": inputs, "cells": cells}
        for inputs, cells in cells_by_inputs.items()
    ]


def _require_usable(checkpoint: str, indices: Sequence[ShardIndex], inputs: str | None) -> None:
    """Raise UserError if a checkpoint is damaged, does not take the ``inputs``, or a data set has no image for it.

    Loading it takes seconds, and the evaluation of the last checkpoint might otherwise fail after hours.
    """
    model_inputs = Estimator.load(checkpoint).inputs
    read_input_sets(inputs, model_inputs, checkpoint)
    for index in indices:
        if inputs is None and not index.has_image(model_inputs).any():
            raise UserError(f"{no_image(index, model_inputs, checkpoint)}; evaluate that checkpoint on other data")


def matrix_table(matrix: dict) -> str:
    """The MAEs, with the number of samples below each, as text."""
    sets, rows = list(matrix["data"]), matrix["rows"]
    first = max(len(_row_name(row)) for row in rows) + 2
    widths = [max(len(name), 8) + 2 for name in sets]
    lines = [f"{'MAE':{first}}{''.join(f'{name:>{width}}' for name, width in zip(sets, widths, strict=True))}"]
    for row in rows:
        cells = [row["cells"][name] for name in sets]
        maes = ("" if cell["mae"] is None else f"{cell['mae']:.2f}{_mark(cell)}" for cell in cells)
        counts = (f"n={cell['n']}" for cell in cells)
        for head, words in ((_row_name(row), maes), ("", counts)):
            lines.append(
                f"{head:{first}}{''.join(f'{word:>{width}}' for word, width in zip(words, widths, strict=True))}"
            )
    return "\n".join([*lines, *_notes(matrix)])


def _mark(cell: dict) -> str:
    return "*" if cell.get("trained_on") else ""


def _notes(matrix: dict) -> list[str]:
    """The meaning of the mark, if there is one, and other reasons why errors do not measure a model."""
    cells = [(f"{row['checkpoint']} on {name}", cell) for row in matrix["rows"] for name, cell in row["cells"].items()]
    marked = [_MARKED] if any(_mark(cell) for _, cell in cells) else []
    others = [(name, cell | {"trained_on": False}, cell.get("tta", "none")) for name, cell in cells]
    return marked + cautions_by_name(others)


def _cell(metrics: dict) -> dict:
    cell = {name: metrics[name] for name in ("n", "mae", "cs5", "bias", "gender_n", "gender_accuracy")}
    cell |= {f"{name}_interval": metrics["intervals"][name] for name in ("mae", "cs5", "bias", "gender_accuracy")}
    cell |= {name: metrics[name] for name in ("people",) if name in metrics}
    if classes := metrics["classes"]:
        cell |= {f"age_group_{name}": classes[name] for name in ("n", "accuracy", "accuracy_interval")}
    if robustness := metrics.get("robustness"):
        names = "mean_relative_degradation", "mean_relative_degradation_interval"
        cell |= {name: robustness[name] for name in names} | {"degradation_n": robustness["samples"]}
    return cell


def _row_name(row: dict) -> str:
    return row["checkpoint"] if row["inputs"] is None else f"{row['checkpoint']} ({row['inputs']})"


def _write_csv(matrix: dict, path: Path) -> None:
    with written_csv(path) as writer:
        writer.writerow(["checkpoint", *(f"{name} {figure}" for name in matrix["data"] for figure in ("mae", "n"))])
        for row in matrix["rows"]:
            cells = (row["cells"][name] for name in matrix["data"])
            figures = (("" if cell["mae"] is None else f"{cell['mae']:.4f}", cell["n"]) for cell in cells)
            writer.writerow([_row_name(row), *(word for pair in figures for word in pair)])


def _page(matrix: dict, cards: Mapping[str, Card], has_reports: bool) -> Page:
    cells = [cell for row in matrix["rows"] for cell in row["cells"].values()]
    largest = max((cell["mae"] for cell in cells if cell["mae"] is not None), default=0) or 1
    mae = _grid(matrix, lambda cell: _mae(cell, largest, has_reports))
    sections = [Section(METRICS["mae"].heading, [mae], f"{LOWER.capitalize()}. {_LEAD}", more=" ".join(_notes(matrix)))]
    for name, (metric, count) in _SHARES.items():
        if any(cell.get(name) is not None for cell in cells):
            table = _grid(matrix, partial(_share, name=name, form=metric.form, count=count))
            sections.append(Section(metric.heading, [table], f"{metric.better.capitalize()}."))
    folders = {row["checkpoint"]: row["folder"] for row in matrix["rows"]}
    models = {name: about_model(folders[name], card) for name, card in cards.items()}
    facts = list(next(iter(models.values())))
    checkpoints = Table(
        ["", *(fact.lower() for fact in facts)], [[name, *model.values()] for name, model in models.items()]
    )
    sets = [
        [name, data_set["folder"], f"{data_set['samples']:,}", data_set["digest"][:12]]
        for name, data_set in matrix["data"].items()
    ]
    sections += [
        Section("Checkpoints", [checkpoints]),
        Section("Data sets", [Table(("", "folder", "samples", "digest"), sets)]),
    ]
    return Page("Checkpoints and data sets", [Part(sections)], provenance(), (MATRIX_FILE, MATRIX_CSV_FILE))


def _grid(matrix: dict, show: Callable[[dict], str | Cell]) -> Table:
    rows = [[_row_name(row), *(show(row["cells"][name]) for name in matrix["data"])] for row in matrix["rows"]]
    return Table(["", *matrix["data"]], rows)


def _mae(cell: dict, largest: float, has_reports: bool) -> str | Cell:
    if cell["mae"] is None:
        return "no ages"
    href = f"{cell['folder']}/{PAGE_FILE}" if has_reports else ""
    small = f"{between(cell['mae_interval'])}\n{images_of(cell)}"
    return Cell(f"{cell['mae']:.2f}{_mark(cell)}", small, href, shade=0.1 + 0.4 * cell["mae"] / largest)


def _share(cell: dict, name: str, form: str, count: str) -> str | Cell:
    if cell.get(name) is None:
        return ""
    return Cell(f"{cell[name]:{form}}", f"{between(cell[f'{name}_interval'], form)}\nn={cell[count]}".strip())
