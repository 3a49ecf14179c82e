"""``report.html``: an evaluation in one file that needs no network, and its plots as PNG."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from mivolo_lite.evaluation.groups import LIMIT
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.plots import Plot, plots
from mivolo_lite.evaluation.predictions import Predictions

REPORT_FILE, PLOTS_FOLDER = "report.html", "plots"
WORST = 24

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #5d6670; --card: #f4f6f8; --line: #d8dde3; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --ink: #e6e9ec; --faint: #9aa4ae; --card: #1e2328; --line: #343b43; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; } h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; } .faint, figcaption, small { color: var(--faint); } nav a { margin-right: 1rem; color: inherit; }
.tiles, .plots, .faces { display: grid; gap: .8rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin: 1rem 0; }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.faces { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
.tile, figure { margin: 0; padding: .7rem; background: var(--card); border-radius: .5rem; min-width: 0; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; } .tile small { display: block; line-height: 1.35; }
figcaption { font-size: .85rem; } .plots figcaption { margin-bottom: .3rem; color: var(--ink); font-weight: 600; }
figure svg { display: block; width: 100%; height: auto; } .faces img, .faces .none { display: block; width: 100%;
  aspect-ratio: 1; object-fit: contain; border-radius: .3rem; background: var(--line); }
.sheets { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
.sheets section { min-width: 0; } .tables { overflow-x: auto; margin-bottom: .6rem; } 
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .2rem .6rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; } td small { margin-left: .3rem; }
@media (max-width: 40rem) { td small { display: block; margin: 0; line-height: 1.1; } }
"""

_NOTES = (
    "Intervals hold 95 % of 1,000 bootstrap draws of the pictures. Where one person is in several pictures they are "
    "too narrow, since not people but pictures were drawn.",
    "The worst treated kind less the best is never 0, not even between equals. By chance alone: what 95 % of random "
    "shuffles of the kinds among pictures of one age bin stay below.",
    "Same ages: every kind weighed as if it were as old as all pictures together, over the ten-year bins that all "
    "kinds have. Babies are easy, and a kind with many of them is not for that reason treated well.",
    "Gender and group are the labels of the data set, made by people or models, with their mistakes.",
)


@dataclass(frozen=True)
class Section:
    """One evaluation of a report.

    Attributes:
        name: of the pictures that the model was shown, None where there is only one section.
        metrics: from ``summarise``.
        predictions: what they are of.
        faces: ``data:`` addresses of the pictures of ``worst_rows``, empty for none; None to show none at all.
    """

    name: str | None
    metrics: dict
    predictions: Predictions
    faces: Sequence[str] | None = None


def worst_rows(predictions: Predictions, count: int = WORST) -> np.ndarray:
    """Rows with the largest age errors, the worst first."""
    distance = np.abs(age_errors(predictions.age, predictions.age_lo, predictions.age_hi))
    order = np.argsort(-distance, kind="stable")  # NaN sorts to the end
    return order[: min(count, int((~np.isnan(distance)).sum()))]


def write_report(sections: Sequence[Section], about: dict[str, str], out: Path | str) -> None:
    """Write ``report.html`` and ``plots/*.png``.

    Args:
        sections: evaluations of the same pictures.
        about: what was evaluated, as words to show.
        out: an existing folder.
    """
    out = Path(out)
    (out / PLOTS_FOLDER).mkdir(exist_ok=True)
    body = []
    for section in sections:
        drawn = list(plots(section.metrics, section.predictions))
        for plot in drawn:
            end = "" if section.name is None else f"_{section.name}"
            (out / PLOTS_FOLDER / f"{plot.name}{end}.png").write_bytes(plot.png)
        body += _section(section, drawn)
    (out / REPORT_FILE).write_text("\n".join(_page(sections, about, body)) + "\n")


def _page(sections: Sequence[Section], about: dict[str, str], body: Iterable[str]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<title>Evaluation</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>'
    yield "<h1>Evaluation</h1>"
    facts = "; ".join(f"{escape(name)} {escape(words)}" for name, words in about.items() if words)
    yield _faint(facts)
    if len(sections) > 1:
        links = "".join(f'<a href="#{one.name}">{one.name}</a>' for one in sections)
        yield f"<nav>{links}</nav>"
    yield from body
    notes = "".join(f"<li>{note}</li>" for note in _NOTES)
    yield f"<h2>How to read this</h2>\n<ul>{notes}</ul>\n</body>\n</html>"


def _section(section: Section, drawn: Sequence[Plot]) -> Iterator[str]:
    metrics = section.metrics
    if section.name is not None:
        yield f'<h2 id="{section.name}">Shown: {section.name}</h2>'
    yield _div("tiles", _tiles(metrics))
    yield _div("plots", map(_drawing, drawn))
    yield _div("sheets", (f"<section>{''.join(parts)}</section>" for parts in _sheets(metrics)))
    if section.faces:
        yield f"<h2>The {len(section.faces)} largest errors</h2>"
        yield _faint("Estimate for true age, and the key. Wrong labels and bad crops show here first.")
        yield _div("faces", _faces(section))


def _tiles(metrics: dict) -> Iterator[str]:
    ends, macro, gender = metrics["intervals"], metrics["macro_mae"], metrics["gender"]
    if metrics["n"]:
        beside = f"of always the mean age: {metrics['baseline_mae']:.2f}"
        yield _tile("MAE, years", f"{metrics['mae']:.2f}", f"{_ends(ends['mae'])} n={metrics['n']}; {beside}")
        yield _tile("CS@5", f"{metrics['cs5']:.1%}", f"{_ends(ends['cs5'], '.1%')} at most 5 years off")
        yield _tile("Bias, years", f"{metrics['bias']:+.2f}", _ends(ends["bias"], "+.2f"))
        yield _tile("Off by 20 or more", f"{metrics['ce20']:.1%}", "of the pictures")
    if macro["value"] is not None:
        yield _tile("Macro-MAE, years", f"{macro['value']:.2f}", f"{_ends(macro['interval'])} {macro['bins']} age bins")
        worst = macro["worst"]
        yield _tile(
            "Worst age bin", f"{worst['mae']:.2f}", f"{worst['name']}, {_ends(worst['interval'])} n={worst['n']}"
        )
    for kind in ("gender x group", "group", "gender"):
        if metrics["gaps"][kind]:
            worst = metrics["gaps"][kind]["worst"]
            small = f"{escape(worst['name'])}, {_ends(worst['interval'])} n={worst['n']}"
            yield _tile(f"Worst {kind}", f"{worst['mae']:.2f}", small)
            break
    if metrics["gaps"]["group"]:
        gap = metrics["gaps"]["group"]["standardised"]
        if gap["gap"] is not None:
            small = f"{_ends(gap['interval'])} same ages; {gap['by_chance']:.2f} by chance alone"
            yield _tile("Gap between groups", f"{gap['gap']:.2f}", small)
    if metrics["gender_accuracy"] is not None:
        small = f"{_ends(ends['gender_accuracy'], '.1%')} n={metrics['gender_n']}"
        yield _tile("Gender right", f"{metrics['gender_accuracy']:.1%}", small)
        yield _tile("Gender ECE", f"{gender['ece']:.3f}", "calibration error, 0 is best")
    if metrics["age_intervals"] and metrics["age_intervals"]["coverage"] is not None:
        intervals = metrics["age_intervals"]
        small = f"nominal {intervals['nominal']:.0%}; {intervals['width']:.1f} years wide"
        yield _tile("Interval coverage", f"{intervals['coverage']:.1%}", small)
    if metrics["classes"]:
        classes = metrics["classes"]
        small = f"one off {classes['one_off']:.1%}, {len(classes['classes'])} groups, n={classes['n']}"
        yield _tile("Age group right", f"{classes['accuracy']:.1%}", small)
    for name, pairs in metrics.get("verification", {}).items():
        if pairs:
            small = f"of {pairs['pairs']} pairs, of {pairs['people']} people; AUC {pairs['auc']:.3f}; chance is 50 %"
            yield _tile(f"{escape(name)} right", f"{pairs['accuracy']:.1%}", small)
    if metrics.get("missing"):
        yield _tile("Left out", f"{metrics['missing']}", "have no such picture")


def _sheets(metrics: dict) -> Iterator[list[str]]:
    for kind, rows in metrics["by"].items():
        if rows:
            cells = (_age_row(name, row) for name, row in rows.items())
            yield [f"<h2>By {kind}</h2>", _table(("", "n", "MAE", "bias", "CS@5"), cells)]
    for kind, gap in metrics["gaps"].items():
        if gap:
            yield [f"<h2>Gap by {kind}</h2>", *_gap_sheet(gap)]
    note = "As NIST defines them, with the groups of this data set in place of regions of birth."
    cells = (_nist_row(name, row) for name, row in metrics["nist"].items())
    yield ["<h2>NIST FATE measures</h2>", _faint(note), _table(("", "n", "cells", "value"), cells)]


def _gap_sheet(gap: dict) -> Iterator[str]:
    rows = gap["rows"].items()
    cells = [(escape(name), row["n"], *(_figure(row[one], row[ends]) for one, ends in _MAES)) for name, row in rows]
    both = gap["raw"], gap["standardised"]
    cells.append(("<b>worst less best</b>", "", *(_figure(one["gap"], one["interval"]) for one in both)))
    cells.append(("by chance alone", "", *(_figure(one["by_chance"], None) for one in both)))
    yield _table(("", "n", "MAE", "same ages"), cells)
    if gap["common_bins"]:
        bins = ", ".join(gap["common_bins"])
        yield _faint(f"same ages: {bins}, {gap['common_share']:.0%} of these pictures")
    if gap["left_out"]:
        few = ", ".join(f"{escape(name)} (n={n})" for name, n in gap["left_out"].items())
        yield _faint(f"left out, fewer than {gap['limit']} pictures: {few}")


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
    return _NIST[name], row["n"], cells, _figure(row["value"], row["interval"], ".2f" if "mae" in name else ".1%")


def _age_row(name: str, row: dict) -> tuple:
    if row["n"] < LIMIT:
        return escape(name), row["n"], f"n &lt; {LIMIT}", "", ""
    mae, bias = _figure(row["mae"], row["mae_interval"]), _figure(row["bias"], row["bias_interval"], "+.2f")
    return escape(name), row["n"], mae, bias, f"{row['cs5']:.1%}"


def _drawing(plot: Plot) -> str:
    image = plot.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plot.caption)}"', 1)
    return f"<figure><figcaption>{escape(plot.caption)}</figcaption>{image}</figure>"


def _faces(section: Section) -> Iterator[str]:
    p = section.predictions
    for row, face in zip(worst_rows(p, len(section.faces)), section.faces, strict=True):
        image = f'<img src="{face}" alt="">' if face else _div("none", ())
        truth = p.true_age(row).replace(";", "-")
        words = f"<b>{p.age[row]:.0f}</b> for {truth}<br>{escape(p.key[row])}"
        yield f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _tile(label: str, number: str, small: str) -> str:
    return f'<div class="tile"><small>{label}</small><b>{number}</b><small>{small}</small></div>'


def _faint(words: str) -> str:
    return f'<p class="faint">{words}</p>'


def _div(kind: str, parts: Iterable[str]) -> str:
    return f'<div class="{kind}">{"".join(parts)}</div>'


def _table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return _div("tables", [f"<table><tr>{titles}</tr>{lines}</table>"])


def _figure(value: float | None, interval: Sequence[float] | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}<small>{_ends(interval, form)}</small>"


def _ends(interval: Sequence[float] | None, form: str = ".2f") -> str:
    return f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
