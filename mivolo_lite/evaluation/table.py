"""Metrics as a table on the screen."""

from collections.abc import Callable, Iterable
from functools import partial

from mivolo_lite.evaluation.about import cautions
from mivolo_lite.evaluation.headline import ADJUSTED, worst_subgroup
from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.evaluation.metrics import SHOWN, task_scores
from mivolo_lite.wording import images_of, percent

_SCORES = {"accuracy": ("accuracy", "share", ".1%"), "mae": ("MAE", "years", ".2f")}
"""Titles of task scores, their columns, and number formats."""


def metrics_table(metrics: dict) -> str:
    """The metrics of ``evaluate`` as text: all images first, then every subgroup, then accuracies and the baseline.

    The sections of several inputs stand side by side.
    """
    if "inputs" in metrics:
        columns = metrics["inputs"]
        heads = "", "".join(f"{name:>32}" for name in columns)
        rows = [heads, *_ages_by_subgroup(columns.values()), ("", ""), *_details_side_by_side(columns.values())]
        robust = [line for name, column in columns.items() for line in _robustness(column, f", input {name}")]
        return "\n".join([*_aligned(rows), *_unreadable(next(iter(columns.values()))), *_cautions(metrics), *robust])
    details = [*_details(metrics), *_cautions(metrics)]
    lines = [*_aligned(_ages_by_subgroup([metrics])), "", *details, *_robustness(metrics)]
    return "\n".join(lines).rstrip()


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    """Names and values in two aligned columns."""
    width = max(16, *(len(name) for name, _ in rows))
    return [f"{name:{width}}{cells}".rstrip() for name, cells in rows]


def _ages_by_subgroup(columns: Iterable[dict]) -> list[tuple[str, str]]:
    columns = list(columns)
    heads = f"{'n':>8}{'MAE':>8}{'CS@5':>8}{'bias':>8}" * len(columns)
    lines = [("", heads), ("all", "".join(map(_ages, columns)))]
    by = {kind: rows for kind, rows in columns[0]["by"].items() if rows}
    for kind, rows in by.items():
        lines += [("", ""), (kind, "")]
        lines += [
            (f"  {name}", "".join(_ages_of_many(column["by"][kind][name]) for column in columns)) for name in rows
        ]
    return lines


def _details(metrics: dict) -> list[str]:
    few = any(row["n"] < LIMIT for rows in metrics["by"].values() for row in rows.values())
    lines = [f"rows of fewer than {LIMIT} images have no figures"] if few else []
    if metrics.get("missing"):
        lines.append(f"{metrics['missing']} samples have no such image and are left out")
    lines += _unreadable(metrics)
    for name, score, value, n in task_scores(metrics):
        title, _, form = _SCORES[score]
        lines.append(f"{name} {title} {value:{form}} of {n}")
    if "epsilon_error" in metrics:
        lines.append(f"epsilon error (ChaLearn) {metrics['epsilon_error']:.3f} of {metrics['epsilon_n']}")
    lines += _verification(metrics)
    lines += _summarised(metrics)
    if metrics["baseline_mae"]:
        share = metrics["mae"] / metrics["baseline_mae"]
        lines.append(f"mean-age baseline: MAE {metrics['baseline_mae']:.2f}; this model has {share:.0%} of it")
    return lines


def _verification(metrics: dict) -> Iterable[str]:
    for name, pairs in metrics["verification"].items():
        if pairs is None:
            yield f"{name}: too few pairs of images of one person, or of two, for a figure"
            continue
        yield f"{name}: AUC {pairs['auc']:.3f}, pairs of {pairs['people']} identities, half of them of one and the same"
        for rate, share in pairs["tar"].items():
            if share is not None:
                yield f"{name}: true accept rate {share:.1%} at a false accept rate of {float(rate):.1%}"


def _summarised(metrics: dict) -> list[str]:
    """The interval of the MAE, the mean over age bins, the gap between groups, age groups and coverage."""
    lines = []
    if metrics["intervals"]["mae"]:
        lower, upper = metrics["intervals"]["mae"]
        people = f"; of {images_of(metrics)}, people are sampled" if "people" in metrics else ""
        lines.append(f"MAE between {lower:.2f} and {upper:.2f} in 95 % of bootstrap samples{people}")
    macro, worst = metrics["macro_mae"], metrics["macro_mae"]["worst"]
    if worst:
        lines.append(f"mean over age bins {macro['value']:.2f}, worst {worst['mae']:.2f} ({worst['name']})")
    groups = metrics["gaps"]["group"]
    if groups and groups["standardised"]["gap"] is not None:
        gap, (name, worst) = groups["standardised"], worst_subgroup(groups)
        by_chance = f"sampling alone gives up to {gap['by_chance']:.2f}"
        lines.append(f"{ADJUSTED} gap between groups {gap['gap']:.2f} ({by_chance})")
        lines.append(f"{ADJUSTED} MAE of the worst group {worst['standardised']:.2f} ({name})")
    if classes := metrics["classes"]:
        one_off = f"{classes['one_off']:.1%} within one group, {classes['distance']:.2f} years from it"
        lines.append(f"age-group accuracy {classes['accuracy']:.1%} of {classes['n']}, {one_off}")
        if "mivolo" in classes:
            rule = f"{classes['mivolo']['accuracy']:.1%}, {classes['mivolo']['one_off']:.1%} within one group"
            lines.append(f"age-group accuracy by MiVOLO's rule, of rounded estimates: {rule}")
    intervals = metrics["age_intervals"]
    if intervals and intervals["coverage"] is not None:
        share = f"{intervals['coverage']:.1%} of ages (nominal {percent(intervals['nominal'])})"
        doubt = "; calibrated on these images, so no evidence" if metrics.get("calibrated_on_these_images") else ""
        lines.append(f"age intervals hold {share}, {intervals['width']:.1f} years wide{doubt}")
    return lines


def _robustness(metrics: dict, suffix: str = "") -> list[str]:
    robustness = metrics.get("robustness")
    if not robustness:
        return []
    clean = f"clean MAE {robustness['clean_mae']:.2f} of {robustness['samples']}"
    lines = ["", f"{'corrupted images':18}{'MAE at strength 1 to 5':>38}{'degradation':>16}  {clean}{suffix}"]
    for name, row in robustness["mae"].items():
        worse = robustness["relative_degradation"][name]
        lines.append(f"  {name:14}{''.join(f'{mae:8.2f}' for mae in row)}{_percent(worse):>16}")
    lower_upper = robustness["mean_relative_degradation_interval"]
    interval = (
        f"  between {' and '.join(map(_percent, lower_upper))} in 95 % of bootstrap samples" if lower_upper else ""
    )
    return [*lines, f"  {'mean':54}{_percent(robustness['mean_relative_degradation']):>16}{interval}"]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:+.1%}"


def _unreadable(metrics: dict) -> list[str]:
    if not metrics.get("unreadable"):
        return []
    n, examples = metrics["unreadable"]["n"], "; ".join(metrics["unreadable"]["first"])
    return [f"{n} images cannot be decoded and count as missing: {examples}{' ...' if n > SHOWN else ''}"]


def _cautions(metrics: dict) -> list[str]:
    left_out = metrics.get("tasks_left_out", {})
    lines = [f"task {name} is left out: {reason}" for name, reason in left_out.items()]
    return [*lines, *cautions(metrics.get("data", {}))]


def _details_side_by_side(columns: Iterable[dict]) -> list[tuple[str, str]]:
    columns = list(columns)
    rows: dict[str, Callable[[dict], str]] = {
        "no such image": lambda column: _cell(column["missing"]),
        **{
            f"{name} {_SCORES[score][0]}": partial(_score_cell, name=name, score=score)
            for name, score in {(name, score): None for column in columns for name, score, *_ in task_scores(column)}
        },
        "mean-age MAE": lambda column: _cell(column["n"], years=column["baseline_mae"]),
        "MAE ratio to it": lambda column: _cell(
            share=column["mae"] / column["baseline_mae"] if column["baseline_mae"] else None
        ),
    }
    return [(name, "".join(map(cell, columns))) for name, cell in rows.items()]


def _ages(row: dict) -> str:
    return _cell(row["n"], row["mae"], row["cs5"], row["bias"])


def _ages_of_many(row: dict) -> str:
    return _ages(row) if row["n"] >= LIMIT else f"{_cell(row['n']):32}"


def _score_cell(column: dict, name: str, score: str) -> str:
    return _cell(column[f"{name}_n"], **{_SCORES[score][1]: column[f"{name}_{score}"]})


def _cell(
    n: int | None = None, years: float | None = None, share: float | None = None, bias: float | None = None
) -> str:
    """Four columns of a table; None is blank."""
    formats = (n, ">8"), (years, ">8.2f"), (share, ">8.1%"), (bias, ">+8.2f")
    return "".join(" " * 8 if value is None else f"{value:{form}}" for value, form in formats)
