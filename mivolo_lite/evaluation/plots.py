"""The figures of a report. Each draws on the axes it is given; colours are legible on white and on black.

Text and lines are in ``INK``, which in an SVG becomes the colour of the text around it, light or dark.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mivolo_lite.evaluation.groups import LIMIT
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.labels import GENDERS

INK = "#010203"
BLUE, ORANGE, RED = "#3b82c4", "#d9770f", "#d0453d"
SHADES = ListedColormap([(0.231, 0.51, 0.769, alpha) for alpha in np.linspace(0.1, 0.75, 8)])
"""More is more opaque: the page's ground shows through, so that text on it stays legible."""
DENSE = ListedColormap([(0.231, 0.51, 0.769, alpha) for alpha in np.linspace(0.3, 1, 8)])

STYLE = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Plot:
    """A figure as ``svg``, an element to put into a page, and as ``png``, with a ``name`` and a ``caption``."""

    name: str
    caption: str
    svg: str
    png: bytes


def plots(metrics: dict, predictions: Predictions) -> Iterator[Plot]:
    """Everything that the metrics of ``summarise`` and the predictions allow to be plotted."""
    for name, caption, draw in _drawings(metrics, predictions):
        yield _plot(name, caption, draw, (4.0, 3.1))


def robustness_plots(robustness: dict) -> Iterator[Plot]:
    """MAE against strength, one small plot for each corruption, all to one scale."""
    top = 1.05 * max(upper for row in robustness["mae_interval"].values() for _, upper in row) or 1
    for name in robustness["mae"]:
        caption = f"{name[0].upper()}{name[1:]}"
        yield _plot(
            f"robustness_{name.lower().replace(' ', '_')}",
            caption,
            lambda ax, name=name: _degradation(ax, robustness, name, top),
            (2.3, 1.9),
        )


def _plot(name: str, caption: str, draw: Draw, size: tuple[float, float]) -> Plot:
    # Names inside an SVG are hashes with this salt: those of one page must not be the same, those of two runs must.
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        return Plot(name, caption, _svg(figure), _png(figure))


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150, facecolor="white")
    return data.getvalue()


def _drawings(metrics: dict, predictions: Predictions) -> Iterator[tuple[str, str, Draw]]:
    p, decades, gender = predictions, metrics["by"]["age"], metrics["gender"]
    if metrics["n"]:
        errors = age_errors(p.age, p.age_lo, p.age_hi)
        errors = errors[~np.isnan(errors)]
        yield "predicted_true", "Estimate against true age", lambda ax: _hexbin(ax, p)
        yield "mae_by_age", "MAE by true age", lambda ax: _by_age(ax, decades, "mae", "MAE in years")
        yield "bias_by_age", "Mean signed error by true age", lambda ax: _by_age(ax, decades, "bias", "bias in years")
        yield "cs", "CS(n): share of errors of at most n years", lambda ax: _cs(ax, metrics["cs"])
        yield "errors", "Signed errors, estimate minus truth", lambda ax: _errors(ax, errors)
    if metrics["gaps"]["group"] and metrics["by"]["gender"]:
        yield "groups", "MAE by gender and group, with n", lambda ax: _groups(ax, p)
    if gender:
        yield "gender_confusion", "Gender, true against estimated", lambda ax: _confusion(ax, gender["confusion"])
        yield (
            "gender_reliability",
            "How often a gender is right, by its probability",
            lambda ax: _reliability(ax, gender),
        )
    for kind, unit in (("age", "MAE in years"), ("gender", "share of wrong genders")):
        curve = metrics["risk_coverage"][kind]
        if curve:
            caption = f"Risk-coverage of {kind}: error of the most certain share"
            yield f"risk_coverage_{kind}", caption, lambda ax, curve=curve, unit=unit: _risk_coverage(ax, curve, unit)
    if metrics["age_intervals"] and metrics["age_intervals"]["coverage"] is not None:
        yield "interval_coverage", "True ages inside their interval", lambda ax: _coverage(ax, metrics["age_intervals"])
    for name, pairs in metrics.get("verification", {}).items():
        if pairs:
            caption = f"Whether two images show one person ({name}): ROC"
            yield f"roc_{name}", caption, lambda ax, pairs=pairs: _roc(ax, pairs)
    for curve in metrics["thresholds"]:
        if any(rate is not None for rate in curve["false_pass"]["rate"]):
            age = curve["legal_age"]
            caption = f"Passing a challenge age T, legal age {age} (our measure, not NIST's)"
            yield f"threshold_{age}", caption, lambda ax, curve=curve: _threshold(ax, curve)


def _hexbin(ax: Axes, p: Predictions) -> None:
    truth = (p.age_lo + p.age_hi) / 2
    known = ~np.isnan(truth) & ~np.isnan(p.age)
    end = max(10.0, float(truth[known].max()), float(p.age[known].max())) * 1.02
    cells = ax.hexbin(
        truth[known],
        p.age[known],
        gridsize=32,
        extent=(0, end, 0, end),
        bins="log",
        mincnt=1,
        cmap=DENSE,
        linewidths=0,
    )
    ax.plot([0, end], [0, end], color=ORANGE, linewidth=1)
    ax.set(xlabel="true age", ylabel="estimated age", xlim=(0, end), ylim=(0, end), aspect="equal")
    bar = ax.figure.colorbar(cells, ax=ax, label="images", shrink=0.8, format="%d")
    bar.outline.set_visible(False)


def _by_age(ax: Axes, decades: dict[str, dict], metric: str, label: str) -> None:
    """Points with intervals where there are enough images, and the counts below."""
    names = list(decades)
    ax.set_xlim(-0.6, len(names) - 0.4)
    for place, row in enumerate(decades.values()):
        if row["n"] >= LIMIT:
            ax.vlines(place, *row[f"{metric}_interval"], color=BLUE, linewidth=2)
            ax.plot(place, row[metric], "o", color=BLUE, markersize=5)
    if metric == "bias":
        ax.axhline(0, color=ORANGE, linewidth=1)
    else:
        ax.set_ylim(bottom=0)
    labels = [f"{name}\nn={row['n']}" for name, row in decades.items()]
    ax.set_xticks(range(len(names)), labels, rotation=90 if len(names) > 6 else 0, fontsize=7)
    ax.set(ylabel=label)
    if any(row["n"] < LIMIT for row in decades.values()):
        ax.set_title(f"no figure for fewer than {LIMIT} images", fontsize=7, loc="right")


def _cs(ax: Axes, cs: list[float]) -> None:
    ax.plot(range(len(cs)), cs, "o-", color=BLUE, markersize=3)
    ax.set(xlabel="n in years", ylabel="CS(n)", ylim=(0, 1))


def _errors(ax: Axes, errors: np.ndarray) -> None:
    ax.hist(np.clip(errors, -30, 30), bins=np.arange(-30.5, 31), color=BLUE)
    ax.axvline(0, color=ORANGE, linewidth=1)
    ax.set(xlabel="error in years (the ends hold all beyond 30)", ylabel="images")


def _groups(ax: Axes, p: Predictions) -> None:
    distance = np.abs(age_errors(p.age, p.age_lo, p.age_hi))
    gender, group = np.array(p.gender, dtype=object), np.array(p.group, dtype=object)
    names = sorted({name for name in p.group if name is not None})
    table, text = np.full((len(names), len(GENDERS)), np.nan), {}
    for row, name in enumerate(names):
        for column, other in enumerate(GENDERS):
            own = distance[(group == name) & (gender == other) & ~np.isnan(distance)]
            enough = len(own) >= LIMIT
            table[row, column] = own.mean() if enough else np.nan
            text[column, row] = f"{own.mean():.2f}  (n={len(own)})" if enough else f"n={len(own)} < {LIMIT}"
    _heat_map(ax, table, list(GENDERS), names, text)


def _confusion(ax: Axes, confusion: dict[str, dict[str, int]]) -> None:
    count = np.array([[confusion[true][answer] for answer in GENDERS] for true in GENDERS])
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    text = {(x, y): f"{count[y, x]}\n{share[y, x]:.1%}" for x in range(len(GENDERS)) for y in range(len(GENDERS))}
    _heat_map(ax, share, list(GENDERS), list(GENDERS), text)
    ax.set(xlabel="estimated", ylabel="true")


def _heat_map(ax: Axes, table: np.ndarray, columns: list[str], rows: list[str], text: dict) -> None:
    ax.grid(False)
    edges = [np.arange(size + 1) - 0.5 for size in reversed(table.shape)]
    ax.pcolormesh(*edges, np.ma.masked_invalid(table), cmap=SHADES, vmin=0)
    for (x, y), words in text.items():
        ax.text(x, y, words, ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)


def _reliability(ax: Axes, gender: dict) -> None:
    bins = gender["bins"]
    ax.plot([0.5, 1], [0.5, 1], color=ORANGE, linewidth=1)
    ax.plot([row["confidence"] for row in bins], [row["accuracy"] for row in bins], "o-", color=BLUE, markersize=4)
    for row in bins:
        ax.annotate(f"{row['n']}", (row["confidence"], row["accuracy"]), (0, 5), textcoords="offset points", fontsize=7)
    ax.set(xlabel="probability of the answer", ylabel="share that is right", xlim=(0.48, 1.02), ylim=(0, 1.08))
    ax.set_title(f"ECE {gender['ece']:.3f}", loc="right")


def _roc(ax: Axes, pairs: dict) -> None:
    far, tar = zip(*pairs["roc"], strict=True)
    ax.plot(far, far, color=ORANGE, linewidth=1)
    ax.step(far, tar, where="post", color=BLUE)
    ax.set(xscale="log", xlabel="false accept rate", ylabel="true accept rate", ylim=(0, 1.02))
    ax.set_title(f"AUC {pairs['auc']:.3f}", loc="right")


def _risk_coverage(ax: Axes, curve: dict, unit: str) -> None:
    ax.plot(curve["coverage"], curve["risk"], color=BLUE)
    ax.set(xlabel="share of the images kept, most certain first", ylabel=unit, xlim=(0, 1))
    ax.set_ylim(bottom=0)
    ax.set_title(f"mean over all shares {curve['aurc']:.3g}", loc="right")


def _coverage(ax: Axes, intervals: dict) -> None:
    rows = {"all": intervals}
    for kind in ("age", "group"):
        rows |= {name: row for name, row in intervals["by"][kind].items() if row["coverage"] is not None}
    ax.axvline(intervals["nominal"], color=ORANGE, linewidth=1)
    for place, row in enumerate(rows.values()):
        ax.hlines(place, *row["interval"], color=BLUE, linewidth=2)
        ax.plot(row["coverage"], place, "o", color=BLUE, markersize=4)
    labels = [f"{name} ({row['width']:.0f} y wide)" for name, row in rows.items()]
    ax.set_yticks(range(len(rows)), labels, fontsize=7)
    ax.invert_yaxis()
    ax.set(xlabel=f"coverage (nominal {intervals['nominal']:.0%})", xlim=(None, 1.01))


def _threshold(ax: Axes, curve: dict) -> None:
    labels = {
        "false_pass": (f"under {curve['legal_age']}, passes", RED, "-"),
        "false_pass_hardest": (f"aged {curve['legal_age'] - 1}, passes", RED, ":"),
        "false_stop": (f"{curve['legal_age']} or over, stopped", BLUE, "-"),
        "inconvenience": ("T or over, stopped", BLUE, ":"),
    }
    for name, (label, colour, line) in labels.items():
        rate = np.array([np.nan if one is None else one for one in curve[name]["rate"]])
        if np.isnan(rate).all():
            continue
        ax.plot(curve["thresholds"], rate, line, color=colour, label=label)
        if line == "-":
            low, high = np.array([(np.nan, np.nan) if pair is None else pair for pair in curve[name]["interval"]]).T
            ax.fill_between(curve["thresholds"], low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="challenge age T", ylabel="share")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=7)


def _degradation(ax: Axes, robustness: dict, name: str, top: float) -> None:
    mae, strengths = robustness["mae"][name], robustness["strengths"][name]
    places = range(1, len(mae) + 1)
    ax.axhline(robustness["clean_mae"], color=ORANGE, linewidth=1)
    ax.fill_between(places, *zip(*robustness["mae_interval"][name], strict=True), color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(places, mae, "o-", color=BLUE, markersize=3)
    ax.set_xticks(places, [f"{strength:g}" for strength in strengths])
    ax.set(ylim=(0, top), ylabel="MAE in years")
