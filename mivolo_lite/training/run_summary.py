"""A summary of a run from its log: best error, progress, speed and restarts."""

from pathlib import Path
from statistics import median
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.training.json_lines import LOG_FILE, read_records


def runs_in(folder: Path) -> list[Path]:
    """The run in a folder, and those in its subfolders, as from ``seeds``; the folder itself if there is none."""
    inner = sorted(log.parent for log in folder.glob(f"*/{LOG_FILE}"))
    return [folder, *inner] if (folder / LOG_FILE).is_file() else inner or [folder]


def summarise(run: Path | str) -> dict[str, Any]:
    """Read the summary of a run from its ``metrics.jsonl``.

    Returns:
        ``run``, ``complete``, ``step`` and ``total_steps``, ``epoch``; ``best_error`` (the MAE in years, or 1 minus the
        accuracy if no age is known or learnt) with ``best_mae``, ``best_step``, ``best_epoch`` and ``best_weights``,
        the folder;
        ``samples_per_second`` and ``wait`` (medians over the lines of the log) and ``mfu``; ``restarts``; ``goodput``,
        the time in steps that are not lost divided by the time from the first start to the last line. None for values
        that the log lacks, as in earlier versions.

    Raises:
        UserError: there is no run, or it has logged nothing.
    """
    run = Path(run)
    records = [record for record in read_records(run / LOG_FILE) if isinstance(record.get("step"), int)]
    by_kind = {kind: [record for record in records if record.get("kind") == kind] for kind in ("start", "train", "val")}
    if not records:
        raise UserError(f"{run}: holds no run that has logged a step; give the folder that --run named")
    epochs = {record["step"]: _number(record, "epoch") for record in by_kind["train"]}
    best = best_evaluation(by_kind["val"])
    weights = run / "best"
    return {
        "run": str(run),
        "complete": records[-1].get("complete", False),
        "step": records[-1]["step"],
        "total_steps": _last(by_kind["start"], "total_steps"),
        "epoch": _last(by_kind["train"], "epoch"),
        "best_error": _number(best, "error" if "error" in best else "mae"),
        "best_mae": _number(best, "mae"),
        "best_step": best.get("step"),
        "best_epoch": epochs.get(best.get("step")),
        "best_weights": str(weights) if weights.is_dir() else None,
        **{name: _median(by_kind["train"], name) for name in ("samples_per_second", "wait", "mfu")},
        "restarts": max(0, len(by_kind["start"]) - 1) if by_kind["start"] else None,
        "goodput": _last(records, "goodput"),
    }


def best_evaluation(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """The evaluation of the weights in ``best``; in logs of earlier versions the latest with the lowest MAE. Empty if
    there is none."""
    chosen = [record for record in evaluations if record.get("best")]
    if chosen:
        return chosen[-1]
    with_ages = [record for record in evaluations if isinstance(record.get("mae"), float)]
    return min(reversed(with_ages), key=lambda record: record["mae"], default={})


def in_lines(summary: dict[str, Any]) -> str:
    """The summary as text, with a line for each known value."""
    total = f" of {summary['total_steps']}" if summary["total_steps"] else ""
    lines = {
        "run": summary["run"] + (", complete" if summary["complete"] else ""),
        "step": f"{summary['step']}{total}",
        "epoch": _formatted(summary["epoch"], "{:.3g}"),
        "best error": _best_error(summary),
        "best weights": summary["best_weights"],
        "samples/s": _formatted(summary["samples_per_second"], "{:.3g}"),
        "waits for data": _formatted(summary["wait"], "{:.0%} of the time"),
        "of GPU's peak": _formatted(summary["mfu"], "{:.0%}"),
        "restarts": _formatted(summary["restarts"], "{}"),
        "goodput": _formatted(summary["goodput"], "{:.1%} of the time since the first start is in steps"),
    }
    return "\n".join(f"{name:15}{text}" for name, text in lines.items() if text is not None)


def error_in_words(error: float, is_mae: bool) -> str:
    """The error by which training selects the best weights, with its unit; see ``validation_error``."""
    return f"{error:.4g} years" if is_mae else f"{error:.1%} of answers wrong"


def _best_error(summary: dict[str, Any]) -> str | None:
    error, epoch = summary["best_error"], summary["best_epoch"]
    if error is None:
        return None
    at_epoch = "" if epoch is None else f", epoch {epoch:.3g}"
    return f"{error_in_words(error, error == summary['best_mae'])} at step {summary['best_step']}{at_epoch}"


def _last(records: list[dict[str, Any]], name: str) -> float | None:
    return next((value for record in reversed(records) if (value := _number(record, name)) is not None), None)


def _median(records: list[dict[str, Any]], name: str) -> float | None:
    values = [value for record in records if (value := _number(record, name)) is not None]
    return median(values) if values else None


def _number(record: dict[str, Any], name: str) -> float | None:
    """A number of a record; None if it has none, as in another program's log."""
    value = record.get(name)
    return value if isinstance(value, int | float) else None


def _formatted(value: Any, form: str) -> str | None:
    return None if value is None else form.format(value)
