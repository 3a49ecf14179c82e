"""``report.html``: an evaluation in one file that needs no network, and its plots as PNG."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from mivolo_lite.evaluation.groups import LIMIT
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.plots import Plot, plots, robustness_plots
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.files import explain_write_errors, write_bytes, write_text
from mivolo_lite.images.corruptions import CORRUPTIONS
from mivolo_lite.reporting.page import between, div, faint, figure, page, table, tile

REPORT_FILE, PLOTS_FOLDER = "report.html", "plots"
WORST = 24

_NOTES = (
    "Intervals hold 95 % of 1,000 bootstrap draws of the images. Where one person is in several images they are "
    "too narrow, since not people but images were resampled.",
    "The worst treated subgroup less the best is never 0, not even between equals. By chance alone: what 95 % of "
    "random "
    "shuffles of the subgroups among images of one age bin stay below.",
    "Same ages: every subgroup weighed as if it were as old as all images together, over the ten-year bins that all "
    "subgroups have. Babies are easy, and a subgroup with many of them is not for that reason treated well.",
    "Gender and group are the labels of the data set, made by people or models, with their mistakes.",
)


@dataclass(frozen=True)
class Section:
    """One evaluation of a report.

    Attributes:
        name: of the images that the model was shown, None where there is only one section.
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


def write_report(sections: Sequence[Section], about: dict[str, str], out: Path | str) -> None:
    """Write ``report.html`` and ``plots/*.png``.

    Args:
        sections: evaluations of the same images.
        about: what was evaluated, as words to show.
        out: an existing folder.
    """
    out = Path(out)
    with explain_write_errors(out):
        (out / PLOTS_FOLDER).mkdir(exist_ok=True)
    body = []
    for section in sections:
        plotted, robustness = list(plots(section.metrics, section.predictions)), section.metrics.get("robustness")
        worse = list(robustness_plots(robustness)) if robustness else []
        for plot in (*plotted, *worse):
            end = "" if section.name is None else f"_{section.name}"
            write_bytes(out / PLOTS_FOLDER / f"{plot.name}{end}.png", plot.png)
        body += _section(section, plotted, worse)
    facts = [f"{name} {words}" for name, words in about.items() if words]
    write_text(out / REPORT_FILE, page("Evaluation", facts, _body(sections, body)))


def _body(sections: Sequence[Section], body: Iterable[str]) -> Iterator[str]:
    if len(sections) > 1:
        links = "".join(f'<a href="#{one.name}">{one.name}</a>' for one in sections)
        yield f"<nav>{links}</nav>"
    yield from body
    notes = "".join(f"<li>{note}</li>" for note in _NOTES)
    yield f"<h2>How to read this</h2>\n<ul>{notes}</ul>"


def _section(section: Section, plotted: Sequence[Plot], worse: Sequence[Plot]) -> Iterator[str]:
    metrics = section.metrics
    if section.name is not None:
        yield f'<h2 id="{section.name}">Shown: {section.name}</h2>'
    yield div("tiles", _tiles(metrics))
    yield div("plots", map(_drawing, plotted))
    if worse:
        yield from _robustness(metrics["robustness"], worse, section.corrupted)
    yield div("sheets", (f"<section>{''.join(parts)}</section>" for parts in _sheets(metrics)))
    if section.faces:
        yield f"<h2>The {len(section.faces)} largest errors</h2>"
        yield faint("Estimate for true age, and the key. Wrong labels and bad crops show here first.")
        yield div("faces", _faces(section))


def _tiles(metrics: dict) -> Iterator[str]:
    ends, macro, gender = metrics["intervals"], metrics["macro_mae"], metrics["gender"]
    if metrics["n"]:
        beside = f"of always the mean age: {metrics['baseline_mae']:.2f}"
        yield tile("MAE, years", f"{metrics['mae']:.2f}", f"{between(ends['mae'])} n={metrics['n']}; {beside}")
        yield tile("CS@5", f"{metrics['cs5']:.1%}", f"{between(ends['cs5'], '.1%')} at most 5 years off")
        yield tile("Bias, years", f"{metrics['bias']:+.2f}", between(ends["bias"], "+.2f"))
        yield tile("Off by 20 or more", f"{metrics['ce20']:.1%}", "of the images")
    if macro["value"] is not None:
        yield tile(
            "Macro-MAE, years", f"{macro['value']:.2f}", f"{between(macro['interval'])} {macro['bins']} age bins"
        )
        worst = macro["worst"]
        yield tile(
            "Worst age bin", f"{worst['mae']:.2f}", f"{worst['name']}, {between(worst['interval'])} n={worst['n']}"
        )
    for subgroup in ("gender x group", "group", "gender"):
        if metrics["gaps"][subgroup]:
            worst = metrics["gaps"][subgroup]["worst"]
            small = f"{escape(worst['name'])}, {between(worst['interval'])} n={worst['n']}"
            yield tile(f"Worst {subgroup}", f"{worst['mae']:.2f}", small)
            break
    if metrics["gaps"]["group"]:
        gap = metrics["gaps"]["group"]["standardised"]
        if gap["gap"] is not None:
            small = f"{between(gap['interval'])} same ages; {gap['by_chance']:.2f} by chance alone"
            yield tile("Gap between groups", f"{gap['gap']:.2f}", small)
    if metrics["gender_accuracy"] is not None:
        small = f"{between(ends['gender_accuracy'], '.1%')} n={metrics['gender_n']}"
        yield tile("Gender right", f"{metrics['gender_accuracy']:.1%}", small)
        yield tile("Gender ECE", f"{gender['ece']:.3f}", "calibration error, 0 is best")
    if metrics["age_intervals"] and metrics["age_intervals"]["coverage"] is not None:
        intervals = metrics["age_intervals"]
        small = f"nominal {intervals['nominal']:.0%}; {intervals['width']:.1f} years wide"
        yield tile("Interval coverage", f"{intervals['coverage']:.1%}", small)
    if metrics["classes"]:
        classes = metrics["classes"]
        small = f"{between(classes['accuracy_interval'], '.1%')} of {len(classes['classes'])} groups, n={classes['n']}"
        yield tile("Age group right", f"{classes['accuracy']:.1%}", small)
        small = f"{between(classes['one_off_interval'], '.1%')} the right group or the next"
        yield tile("One group off at most", f"{classes['one_off']:.1%}", small)
        if "mivolo" in classes:
            mivolo, small = classes["mivolo"], "rounded estimates, its own first years"
            yield tile(
                "Age group by MiVOLO's rule", f"{mivolo['accuracy']:.1%}", f"{small}; {mivolo['one_off']:.1%} one off"
            )
    if (metrics.get("robustness") or {}).get("mean_relative_degradation") is not None:
        robustness = metrics["robustness"]
        worse, interval = robustness["mean_relative_degradation"], robustness["mean_relative_degradation_interval"]
        small = f"{between(interval, '+.0%')} MAE, mean of 50 corruptions, n={robustness['samples']}"
        yield tile("Worse on bad images", f"{worse:+.0%}", small)
    for name, pairs in metrics.get("verification", {}).items():
        if pairs:
            small = f"of {pairs['pairs']} pairs, of {pairs['people']} people; AUC {pairs['auc']:.3f}; chance is 50 %"
            yield tile(f"{escape(name)} right", f"{pairs['accuracy']:.1%}", small)
    if metrics.get("missing"):
        yield tile("Left out", f"{metrics['missing']}", "have no such image")
    if metrics.get("unreadable"):
        yield tile("Unreadable", f"{metrics['unreadable']['n']}", "images cannot be decoded")


def _sheets(metrics: dict) -> Iterator[list[str]]:
    for subgroup, rows in metrics["by"].items():
        if rows:
            cells = (_age_row(name, row) for name, row in rows.items())
            yield [f"<h2>By {subgroup}</h2>", table(("", "n", "MAE", "bias", "CS@5"), cells)]
    if metrics["classes"]:
        note = "Groups are the ranges of the labels; between two the nearer counts. Distance: years to the range."
        cells = (_class_row(name, row) for name, row in metrics["classes"]["by"].items())
        yield ["<h2>By age group</h2>", faint(note), table(("", "n", "right", "one off", "distance"), cells)]
    for subgroup, gap in metrics["gaps"].items():
        if gap:
            yield [f"<h2>Gap by {subgroup}</h2>", *_gap_sheet(gap)]
    note = "As NIST defines them, with the groups of this data set in place of regions of birth."
    cells = (_nist_row(name, row) for name, row in metrics["nist"].items())
    yield ["<h2>NIST FATE measures</h2>", faint(note), table(("", "n", "cells", "value"), cells)]


def _gap_sheet(gap: dict) -> Iterator[str]:
    rows = gap["rows"].items()
    cells = [(escape(name), row["n"], *(figure(row[one], row[ends]) for one, ends in _MAES)) for name, row in rows]
    both = gap["raw"], gap["standardised"]
    cells.append(("<b>worst less best</b>", "", *(figure(one["gap"], one["interval"]) for one in both)))
    cells.append(("by chance alone", "", *(figure(one["by_chance"], None) for one in both)))
    yield table(("", "n", "MAE", "same ages"), cells)
    if gap["common_bins"]:
        bins = ", ".join(gap["common_bins"])
        yield faint(f"same ages: {bins}, {gap['common_share']:.0%} of these images")
    if gap["left_out"]:
        few = ", ".join(f"{escape(name)} (n={n})" for name, n in gap["left_out"].items())
        yield faint(f"left out, fewer than {gap['limit']} images: {few}")


_MAES = ("mae", "interval"), ("standardised", "standardised_interval")

_NIST = {
    "mae_18_30": "MAE, 18 to 30, mean of 26 gender x year cells",
    "challenge_25_fpr": "Challenge 25: 17-year-olds estimated 25 or more",
    "teen_mae": "MAE, 13 to 16",
    "teen_tpr": "13-16 estimated 13-16",
    "teen_fnr_down": "13-16 estimated 8-12",
    "teen_fnr_up": "13-16 estimated 17-22",
    "child_fpr": "8-12 estimated 13-16",
    "adult_fpr": "17-22 estimated 13-16",
}


def _nist_row(name: str, row: dict) -> tuple:
    cells = f"{row['cells']} of {row['cells_wanted']}" if "cells_wanted" in row else row["cells"]
    if row["value"] is None:
        return _NIST[name], row["n"], cells, f"n &lt; {LIMIT}" if row["n"] < LIMIT else "empty cells"
    return _NIST[name], row["n"], cells, figure(row["value"], row["interval"], ".2f" if "mae" in name else ".1%")


def _age_row(name: str, row: dict) -> tuple:
    if row["n"] < LIMIT:
        return escape(name), row["n"], f"n &lt; {LIMIT}", "", ""
    mae, bias = figure(row["mae"], row["mae_interval"]), figure(row["bias"], row["bias_interval"], "+.2f")
    return escape(name), row["n"], mae, bias, f"{row['cs5']:.1%}"


def _class_row(name: str, row: dict) -> tuple:
    if row["accuracy"] is None:
        return name, row["n"], f"n &lt; {LIMIT}", "", ""
    right, one_off = (figure(row[share], row[f"{share}_interval"], ".1%") for share in ("accuracy", "one_off"))
    return name, row["n"], right, one_off, f"{row['distance']:.2f}"


def _robustness(robustness: dict, plotted: Iterable[Plot], corrupted: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "<h2>On worse images</h2>"
    yield faint(_about_robustness(robustness))
    yield div("plots small", map(_drawing, plotted))
    worse, intervals = robustness["relative_degradation"], robustness["relative_degradation_interval"]
    rows = (
        (
            escape(name),
            figure(worse[name], intervals[name], "+.0%"),
            *(f"{mae:.2f}" for mae in row),
            f"<small>{escape(CORRUPTIONS[name].meaning)}</small>",
        )
        for name, row in robustness["mae"].items()
    )
    yield table(("MAE at strength", "degradation", "1", "2", "3", "4", "5", "strength"), rows)
    if corrupted:
        yield faint("One image as the model is shown it, as it is and at strengths 1, 3 and 5.")
        yield div("plots strips", (_strip(name, faces) for name, faces in corrupted.items()))


def _about_robustness(robustness: dict) -> str:
    clean = f"{robustness['clean_mae']:.2f} {between(robustness['clean_mae_interval'])}"
    words = (
        f"The same {robustness['samples']} images, made worse in ten ways at five strengths each. The line is the "
        f"MAE of the images as they are, {clean}; the band holds 95 % of bootstrap draws."
    )
    if robustness["mean_relative_degradation"] is None:
        return words
    interval = between(robustness["mean_relative_degradation_interval"], "+.1%")
    return (
        f"{words} Mean relative degradation {robustness['mean_relative_degradation']:+.1%} {interval}: the mean over "
        "all 50 of MAE / clean MAE - 1. It says how an error grows, not how large it is: read it beside the MAE."
    )


def _strip(name: str, faces: Sequence[str]) -> str:
    images = (f'<img src="{face}" alt="">' for face in faces[::2] if face)
    return f"<figure><figcaption>{escape(name)}</figcaption>{div('strip faces', images)}</figure>"


def _drawing(plot: Plot) -> str:
    image = plot.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plot.caption)}"', 1)
    return f"<figure><figcaption>{escape(plot.caption)}</figcaption>{image}</figure>"


def _faces(section: Section) -> Iterator[str]:
    p = section.predictions
    for row, face in zip(worst_rows(p, len(section.faces)), section.faces, strict=True):
        image = f'<img src="{face}" alt="">' if face else div("none", ())
        truth = p.true_age(row).replace(";", "-")
        words = f"<b>{p.age[row]:.0f}</b> for {truth}<br>{escape(p.key[row])}"
        yield f"<figure>{image}<figcaption>{words}</figcaption></figure>"
