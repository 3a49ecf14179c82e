"""The headline figures of a report, each with its better direction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mivolo_lite.evaluation.metric_names import HIGHER, LOWER, METRICS, ZERO
from mivolo_lite.evaluation.metrics import task_scores
from mivolo_lite.reporting.page import Cell
from mivolo_lite.wording import images_of, percent

ADJUSTED = "age-adjusted"


@dataclass(frozen=True)
class Measure:
    """A number of an evaluation, as a report shows it.

    Attributes:
        name: what it is, with its unit.
        better: which numbers are better; empty where none is.
        value: the number as text.
        interval: its 95 % interval as text, empty where it has none.
        of: the name of the worst subgroup, for its measure.
        note: explanation in a few words.
    """

    name: str
    better: str
    value: str
    interval: str = ""
    of: str = ""
    note: str = ""


def headline(metrics: dict) -> Iterator[Measure]:
    """The measures that the metrics of ``summarise`` have."""
    yield from _ages(metrics)
    yield from _subgroups(metrics["gaps"])
    yield from _gender(metrics)
    yield from _tasks(metrics)
    yield from _age_groups(metrics["classes"])
    yield from _robustness(metrics.get("robustness") or {})
    for name, pairs in metrics["verification"].items():
        if pairs:
            note = f"of {pairs['pairs']} pairs of {pairs['people']} identities; AUC {pairs['auc']:.3f}; chance is 50 %"
            yield Measure(f"Verification accuracy, {name}", HIGHER, f"{pairs['accuracy']:.1%}", note=note)
    if metrics.get("missing"):
        yield Measure("Samples left out", "", f"{metrics['missing']}", note="they have no such image")
    if metrics.get("unreadable"):
        yield Measure("Unreadable images", "", f"{metrics['unreadable']['n']}", note="they cannot be decoded")


def worst_subgroup(gap: dict) -> tuple[str, dict]:
    """Name and row of the subgroup with the largest age-adjusted MAE, or the largest raw MAE without common ages.

    Args:
        gap: of ``gaps``.
    """
    rows = gap["rows"]
    by = "mae" if any(row["standardised"] is None for row in rows.values()) else "standardised"
    name = max(rows, key=lambda name: rows[name][by])
    return name, rows[name]


def between(interval: Sequence[float] | None, form: str = ".2f") -> str:
    """An interval as text, empty for none."""
    return f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""


def figure(value: float | None, interval: Sequence[float] | None, form: str = ".2f") -> Cell:
    """A cell with a number and its interval, empty for none."""
    return Cell("") if value is None else Cell(f"{value:{form}}", between(interval, form))


def _compared(name: str, metrics: dict, note: str) -> Measure:
    """One of ``METRICS``."""
    metric, interval = METRICS[name], metrics["intervals"][name]
    value = f"{metrics[name]:{metric.form}}"
    return Measure(metric.heading, metric.better, value, between(interval, metric.form), note=note)


def _ages(metrics: dict) -> Iterator[Measure]:
    intervals, macro = metrics["intervals"], metrics["macro_mae"]
    if metrics["n"]:
        note = f"{images_of(metrics)}; mean-age baseline {metrics['baseline_mae']:.2f}"
        yield _compared("mae", metrics, note)
        yield _compared("cs5", metrics, "errors of at most 5 years")
        yield Measure("Bias, years", ZERO, f"{metrics['bias']:+.2f}", between(intervals["bias"], "+.2f"))
        interval = between(intervals["ce20"], ".1%")
        yield Measure("Errors of 20 years or more", LOWER, f"{metrics['ce20']:.1%}", interval)
    if macro["bins"] > 1:
        note, worst = f"mean over {macro['bins']} age bins", macro["worst"]
        yield Measure("Macro-MAE, years", LOWER, f"{macro['value']:.2f}", between(macro["interval"]), note=note)
        note = f"MAE, n={worst['n']}"
        yield Measure("Worst age bin", LOWER, f"{worst['mae']:.2f}", between(worst["interval"]), worst["name"], note)
    intervals = metrics["age_intervals"]
    if intervals and intervals["coverage"] is not None:
        better, note = f"nearest {percent(intervals['nominal'])} is best", f"{intervals['width']:.1f} years wide"
        interval = between(intervals["interval"], ".1%")
        yield Measure("Interval coverage", better, f"{intervals['coverage']:.1%}", interval, note=note)


def _subgroups(gaps: dict) -> Iterator[Measure]:
    kind = next((kind for kind in ("gender x group", "group", "gender") if gaps[kind]), None)
    if kind:
        name, row = worst_subgroup(gaps[kind])
        if row["standardised"] is None:
            value, version, how = row["mae"], "raw", "MAE"
        else:
            value, version, how = row["standardised"], "standardised", f"{ADJUSTED} MAE"
        interval = gaps[kind][version]["worst_interval"]
        yield Measure(f"Worst {kind}", LOWER, f"{value:.2f}", between(interval), name, f"{how}, n={row['n']}")
    gap = gaps["group"] and gaps["group"]["standardised"]
    if gap and gap["gap"] is not None:
        note = f"{ADJUSTED}; sampling alone gives up to {gap['by_chance']:.2f}"
        yield Measure("Gap between groups, years", LOWER, f"{gap['gap']:.2f}", between(gap["interval"]), note=note)


def _gender(metrics: dict) -> Iterator[Measure]:
    if metrics["gender_accuracy"] is not None:
        yield _compared("gender_accuracy", metrics, f"n={metrics['gender_n']}")
        ece, by_chance = metrics["gender"]["ece"], metrics["gender"]["ece_by_chance"]
        note = f"expected calibration error; sampling alone gives up to {by_chance:.3f}"
        yield Measure("Gender ECE", LOWER, f"{ece:.3f}", note=note)


def _tasks(metrics: dict) -> Iterator[Measure]:
    """Those that have no measures of their own."""
    for name, score, value, n in task_scores(metrics):
        if name == "gender" or name in metrics["verification"]:
            continue
        if score == "accuracy":
            yield Measure(f"Accuracy, {name}", HIGHER, f"{value:.1%}", note=f"n={n}")
        else:
            yield Measure(f"MAE, {name}", LOWER, f"{value:.2f}", note=f"n={n}")


def _age_groups(classes: dict | None) -> Iterator[Measure]:
    if not classes:
        return
    note = f"of {len(classes['classes'])} groups, n={classes['n']}"
    interval = between(classes["accuracy_interval"], ".1%")
    yield Measure("Age-group accuracy", HIGHER, f"{classes['accuracy']:.1%}", interval, note=note)
    interval, note = between(classes["one_off_interval"], ".1%"), "the labelled age group or the next"
    yield Measure("Within one age group", HIGHER, f"{classes['one_off']:.1%}", interval, note=note)
    if "mivolo" in classes:
        mivolo = classes["mivolo"]
        note = f"of rounded estimates; {mivolo['one_off']:.1%} within one group"
        yield Measure("Age-group accuracy by MiVOLO's rule", HIGHER, f"{mivolo['accuracy']:.1%}", note=note)


def _robustness(robustness: dict) -> Iterator[Measure]:
    worse = robustness.get("mean_relative_degradation")
    if worse is not None:
        interval = between(robustness["mean_relative_degradation_interval"], "+.0%")
        note = f"change of the MAE, mean of 50 corruptions, n={robustness['samples']}"
        yield Measure("Degradation on corrupted images", LOWER, f"{worse:+.0%}", interval, note=note)
