"""The tables of a report."""

from mivolo_lite.evaluation.headline import ADJUSTED, figure
from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.images.corruptions import CORRUPTIONS
from mivolo_lite.reporting.page import Cell, Table

_FEW = f"n < {LIMIT}"

_NIST = {
    "mae_18_30": "MAE, 18 to 30, mean of 26 gender x year bins",
    "challenge_25_fpr": "Challenge 25: 17-year-olds estimated 25 or more",
    "teen_mae": "MAE, 13 to 16",
    "teen_tpr": "13-16 estimated 13-16",
    "teen_fnr_down": "13-16 estimated 8-12",
    "teen_fnr_up": "13-16 estimated 17-22",
    "child_fpr": "8-12 estimated 13-16",
    "adult_fpr": "17-22 estimated 13-16",
}


def age_table(metrics: dict) -> Table | None:
    """Errors by ten-year bin."""
    rows = metrics["by"]["age"]
    if not rows:
        return None
    head = ("true age", "n", "MAE", "bias", "CS@5")
    return Table(head, [[name, _count(row), *_errors(row)] for name, row in rows.items()], "By age")


def subgroup_table(metrics: dict, subgroup: str) -> Table | None:
    """Errors by ``gender``, ``group`` or ``gender x group``, raw and age-adjusted, and their gap."""
    gap, by = metrics["gaps"][subgroup], metrics["by"].get(subgroup)
    compared = gap["rows"] if gap else {}
    if not by and not compared:
        return None
    lines = []
    for name, row in (by or compared).items():
        mae, *others = _errors(row) if by else [figure(row["mae"], row["interval"])]
        lines.append([name, _count(row), mae, _adjusted(compared.get(name)), *others])
    if gap:
        both, rest = (gap["raw"], gap["standardised"]), ["", ""] if by else []
        lines.append(["gap", "", *(figure(measure["gap"], measure["interval"]) for measure in both), *rest])
        lines.append(["sampling alone", "", *(figure(measure["by_chance"], None) for measure in both), *rest])
    head = (subgroup, "n", "MAE", f"{ADJUSTED} MAE", *(("bias", "CS@5") if by else ()))
    return Table(head, lines, f"By {subgroup}", _notes(gap) if gap else [])


def age_group_table(classes: dict | None) -> Table | None:
    """Accuracy by labelled age group."""
    if not classes:
        return None
    head = ("age group", "n", "accuracy", "within one group", "distance")
    rows = [[name, row["n"], *_shares(row)] for name, row in classes["by"].items()]
    note = "The groups are the ranges of the labels; between two, the nearer counts. Distance: years to the range."
    return Table(head, rows, "By age group", [note])


def nist_table(nist: dict) -> Table | None:
    """NIST's measures, if there are any."""
    if not any(row["n"] for row in nist.values()):
        return None
    return Table(("", "n", "bins", "value"), [_nist_row(name, row) for name, row in nist.items()])


def robustness_table(robustness: dict) -> Table:
    """MAE by corruption and strength."""
    worse, intervals = robustness["relative_degradation"], robustness["relative_degradation_interval"]
    rows: list[list[str | Cell]] = [
        [
            Cell(name, CORRUPTIONS[name].meaning),
            figure(worse[name], intervals[name], "+.0%"),
            *(f"{mae:.2f}" for mae in row),
        ]
        for name, row in robustness["mae"].items()
    ]
    return Table(("MAE at strength", "degradation", "1", "2", "3", "4", "5"), rows)


def _adjusted(row: dict | None) -> str | Cell:
    return figure(row["standardised"], row["standardised_interval"]) if row else ""


def _notes(gap: dict) -> list[str]:
    notes = ["gap: the worst minus the best; sampling alone: what it stays below between equals, in 95 % of shuffles"]
    if gap["common_bins"]:
        notes.append(f"{ADJUSTED} over {', '.join(gap['common_bins'])}: {gap['common_share']:.0%} of these images")
    if gap["left_out"]:
        few = ", ".join(f"{name} (n={n})" for name, n in gap["left_out"].items())
        notes.append(f"left out, fewer than {gap['limit']} images: {few}")
    return notes


def _count(row: dict) -> int | Cell:
    """The number of images, and of people if they are known."""
    return Cell(str(row["n"]), f"of {row['people']} people") if "people" in row else row["n"]


def _errors(row: dict) -> tuple:
    if row["n"] < LIMIT:
        return _FEW, "", ""
    mae, bias = figure(row["mae"], row["mae_interval"]), figure(row["bias"], row["bias_interval"], "+.2f")
    return mae, bias, f"{row['cs5']:.1%}"


def _shares(row: dict) -> tuple:
    if row["accuracy"] is None:
        return _FEW, "", ""
    accuracy, one_off = (figure(row[share], row[f"{share}_interval"], ".1%") for share in ("accuracy", "one_off"))
    return accuracy, one_off, f"{row['distance']:.2f}"


def _nist_row(name: str, row: dict) -> list:
    bins = f"{row['cells']} of {row['cells_wanted']}" if "cells_wanted" in row else row["cells"]
    if row["value"] is None:
        return [_NIST[name], row["n"], bins, _FEW if row["n"] < LIMIT else "empty bins"]
    return [_NIST[name], row["n"], bins, figure(row["value"], row["interval"], ".2f" if "mae" in name else ".1%")]
