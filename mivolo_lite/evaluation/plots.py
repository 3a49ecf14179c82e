"""The plots of an evaluation; those without data are left out."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.evaluation.metrics import age_errors, by_number
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.labels import GENDERS
from mivolo_lite.reporting.plots import BLUE, COLOURS, DENSE, INK, RED, SHADES, Plot, legend, reference
from mivolo_lite.wording import percent


def age_plots(metrics: dict, predictions: Predictions) -> Iterator[Plot]:
    """Age errors: of every estimate, by age bin, and cumulative."""
    if not metrics["n"]:
        return
    errors = age_errors(predictions.age, predictions.age_lo, predictions.age_hi)
    errors = errors[~np.isnan(errors)]
    yield Plot("predicted_true", "Estimated age against true age", lambda ax: _hexbin(ax, predictions))
    yield from curves({"": metrics})
    yield Plot("errors", "Errors, estimated minus true age", lambda ax: _errors(ax, errors))


def curves(metrics: Mapping[str, dict]) -> Iterator[Plot]:
    """MAE and bias by age bin, and cumulative scores, of one evaluation or of several in the same plots.

    Args:
        metrics: by the evaluations' names: ``by`` with the rows of ``age``, and ``cs``.
    """
    decades = {name: evaluation["by"]["age"] for name, evaluation in metrics.items()}
    bins = _large_bins(decades.values())
    if bins:
        few = {name for rows in decades.values() for name in rows} - set(bins)
        note = f"Bins of fewer than {LIMIT} images are not shown." if few else ""
        for metric, caption, label in (
            ("mae", "MAE by true age, lower is better", "MAE in years"),
            ("bias", "Bias by true age, nearest 0 is best", "bias in years"),
        ):
            yield Plot(
                f"{metric}_by_age",
                caption,
                partial(_by_age, decades=decades, bins=bins, metric=metric, label=label),
                note=note,
            )
    scores = {name: evaluation["cs"] for name, evaluation in metrics.items() if evaluation["cs"]}
    if scores:
        yield Plot("cs", "CS(n), share of errors of at most n years, higher is better", lambda ax: _cs(ax, scores))


def subgroup_plots(gap: dict | None) -> Iterator[Plot]:
    """Age-adjusted MAE by gender and group.

    Args:
        gap: of ``gaps``, between ``gender x group``.
    """
    rows = {name: row for name, row in (gap or {"rows": {}})["rows"].items() if row["standardised"] is not None}
    if rows:
        caption = "Age-adjusted MAE by gender and group, lower is better"
        yield Plot("groups", caption, lambda ax: _groups(ax, rows))


def gender_plots(gender: dict | None) -> Iterator[Plot]:
    """Confusion and reliability of the gender."""
    if gender:
        yield Plot("gender_confusion", "True and estimated gender", lambda ax: _confusion(ax, gender["confusion"]))
        caption, note = "Gender accuracy by probability", "Numbers are images. On the line, the probability is right."
        yield Plot("gender_reliability", caption, lambda ax: _reliability(ax, gender["bins"]), note=note)


def confidence_plots(metrics: dict) -> Iterator[Plot]:
    """Plots of the model's uncertainty against its errors."""
    for kind, unit in (("age", "MAE in years"), ("gender", "share of wrong genders")):
        curve = metrics["risk_coverage"][kind]
        if curve:
            caption = f"Risk-coverage of {kind}: error of the most certain share"
            draw = partial(_risk_coverage, curve=curve, unit=unit)
            yield Plot(f"risk_coverage_{kind}", caption, draw, note=f"Mean over all shares: {curve['aurc']:.3g}")
    intervals = metrics["age_intervals"]
    if intervals and intervals["coverage"] is not None:
        caption = f"True ages inside their interval, nearest {percent(intervals['nominal'])} is best"
        note = "Intervals know the estimate, not the true age: of one true age they may hold less than of all."
        yield Plot("interval_coverage", caption, lambda ax: _coverage(ax, intervals), note=note)


def verification_plots(verification: Mapping[str, dict | None]) -> Iterator[Plot]:
    """ROC curve of face verification."""
    for name, pairs in verification.items():
        if pairs:
            caption = f"Whether two images show one person ({name}): ROC, AUC {pairs['auc']:.3f}"
            yield Plot(f"roc_{name}", caption, partial(_roc, roc=pairs["roc"]))


def threshold_plots(thresholds: list[dict]) -> Iterator[Plot]:
    """Who passes a challenge age, by legal age."""
    for curve in thresholds:
        if any(rate is not None for rate in curve["false_pass"]["rate"]):
            age = curve["legal_age"]
            caption = f"Passing a challenge age T, legal age {age}, lower is better"
            yield Plot(f"threshold_{age}", caption, partial(_threshold, curve=curve))


def robustness_plots(robustness: dict) -> Iterator[Plot]:
    """MAE against strength, one small plot for each corruption, with a common scale."""
    highest = [mae for row in robustness["mae"].values() for mae in row]
    highest += [interval[1] for row in robustness["mae_interval"].values() for interval in row if interval]
    top = 1.05 * max(highest) or 1
    for name in robustness["mae"]:
        yield Plot(
            f"robustness_{name.lower().replace(' ', '_')}",
            f"{name[0].upper()}{name[1:]}",
            partial(_degradation, robustness=robustness, name=name, top=top),
            (2.6, 2.1),
        )


def _large_bins(decades: Iterable[Mapping[str, dict]]) -> list[str]:
    """Names of the age bins in which any evaluation has enough images, in their order."""
    rows = [(name, row) for bins in decades for name, row in bins.items()]
    return sorted({name for name, row in rows if row["n"] >= LIMIT}, key=by_number)


def _hexbin(ax: Axes, p: Predictions) -> None:
    truth = (p.age_lo + p.age_hi) / 2
    known = ~np.isnan(truth) & ~np.isnan(p.age)
    end = max(10.0, float(truth[known].max()), float(p.age[known].max())) * 1.02
    bins = ax.hexbin(
        truth[known],
        p.age[known],
        gridsize=32,
        extent=(0, end, 0, end),
        bins="log",
        mincnt=1,
        cmap=DENSE,
        linewidths=0,
    )
    reference(ax, [0, end], [0, end])
    ax.set(xlabel="true age", ylabel="estimated age", xlim=(0, end), ylim=(0, end), aspect="equal")
    ticks = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    bar = ax.figure.colorbar(bins, ax=ax, label="images", shrink=0.8, format="%d")
    bar.set_ticks([tick for tick in ticks if tick <= bins.norm.vmax])
    bar.minorticks_off()  # below a hundred images, matplotlib's labels are formulas, which are wider than the plot
    bar.outline.set_visible(False)


def _by_age(ax: Axes, decades: dict[str, dict[str, dict]], bins: list[str], metric: str, label: str) -> None:
    """Points with intervals, connected; those of several evaluations beside each other."""
    if metric == "bias":
        reference(ax, [-0.5, len(bins) - 0.5], [0, 0])
    for index, (name, rows) in enumerate(decades.items()):
        shift = 0.12 * (index - (len(decades) - 1) / 2)
        positions = [position for position, bin in enumerate(bins) if bin in rows and rows[bin]["n"] >= LIMIT]
        values = [rows[bins[position]][metric] for position in positions]
        intervals = [rows[bins[position]][f"{metric}_interval"] or (np.nan, np.nan) for position in positions]
        lower, upper = np.reshape(intervals, (-1, 2)).T
        colour, x = COLOURS[index % len(COLOURS)], np.array(positions) + shift
        ax.vlines(x, lower, upper, color=colour, linewidth=2, alpha=0.6)
        ax.plot(x, values, "o-", color=colour, markersize=4, linewidth=1, label=name)
    labels = bins
    if len(decades) == 1:
        (rows,) = decades.values()
        labels = [f"{name}\nn={rows[name]['n']}" for name in bins]
    ax.set_xticks(range(len(bins)), labels, rotation=90 if len(bins) > 5 else 0, fontsize=9)
    ax.set(ylabel=label, xlim=(-0.5, len(bins) - 0.5))
    if metric == "mae":
        ax.set_ylim(bottom=0)
    legend(ax)


def _cs(ax: Axes, scores: dict[str, list[float]]) -> None:
    for index, (name, cs) in enumerate(scores.items()):
        ax.plot(range(len(cs)), cs, "o-", color=COLOURS[index % len(COLOURS)], markersize=3, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="n in years", ylabel="CS(n)", ylim=(0, 1))
    legend(ax)


def _errors(ax: Axes, errors: np.ndarray) -> None:
    ax.hist(np.clip(errors, -30, 30), bins=np.arange(-30.5, 31).tolist(), color=BLUE)
    ax.axvline(0, color=INK, linewidth=1)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="error in years (the ends hold all beyond 30)", ylabel="images")


def _groups(ax: Axes, rows: dict[str, dict]) -> None:
    pairs = {name: tuple(name.split(" ", 1)) for name in rows}
    groups = sorted({group for _, group in pairs.values()})
    table, text = np.full((len(groups), len(GENDERS)), np.nan), {}
    for name, (gender, group) in pairs.items():
        column, line, row = GENDERS.index(gender), groups.index(group), rows[name]
        table[line, column] = row["standardised"]
        text[column, line] = f"{row['standardised']:.2f}  (n={row['n']})"
    _heat_map(ax, table, list(GENDERS), groups, text)


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
        ax.text(x, y, words, ha="center", va="center", fontsize=9)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)


def _reliability(ax: Axes, bins: list[dict]) -> None:
    reference(ax, [0.5, 1], [0.5, 1])
    ax.plot([row["confidence"] for row in bins], [row["accuracy"] for row in bins], "o-", color=BLUE, markersize=4)
    for row in bins:
        point = (row["confidence"], row["accuracy"])
        ax.annotate(f"{row['n']}", point, (0, 5), textcoords="offset points", fontsize=9)
    ax.set(xlabel="probability of the estimated gender", ylabel="accuracy", xlim=(0.48, 1.02), ylim=(0, 1.08))


def _roc(ax: Axes, roc: list[list[float]]) -> None:
    false_accepts, true_accepts = zip(*roc, strict=True)
    reference(ax, false_accepts, false_accepts)
    ax.step(false_accepts, true_accepts, where="post", color=BLUE)
    ax.set(xscale="log", xlabel="false accept rate", ylabel="true accept rate", ylim=(0, 1.02))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")


def _risk_coverage(ax: Axes, curve: dict, unit: str) -> None:
    ax.plot(curve["coverage"], curve["risk"], color=BLUE)
    ax.set(xlabel="share of the images kept, most certain first", ylabel=unit, xlim=(0, 1))
    ax.set_ylim(bottom=0)


def _coverage(ax: Axes, intervals: dict) -> None:
    rows = {"all": intervals}
    for kind in ("age", "group"):
        rows |= {name: row for name, row in intervals["by"][kind].items() if row["coverage"] is not None}
    reference(ax, [intervals["nominal"]] * 2, [-0.5, len(rows) - 0.5])
    for y, row in enumerate(rows.values()):
        ax.hlines(y, *row["interval"], color=BLUE, linewidth=2)
        ax.plot(row["coverage"], y, "o", color=BLUE, markersize=4)
    labels = [f"{name} ({row['width']:.0f} y wide)" for name, row in rows.items()]
    ax.set_yticks(range(len(rows)), labels, fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="coverage", xlim=(None, 1.01))


def _threshold(ax: Axes, curve: dict) -> None:
    labels = {
        "false_pass": (f"under {curve['legal_age']}, passes", RED, "-"),
        "false_pass_hardest": (f"aged {curve['legal_age'] - 1}, passes", RED, ":"),
        "false_stop": (f"{curve['legal_age']} or over, stopped", BLUE, "-"),
        "inconvenience": ("T or over, stopped", BLUE, ":"),
    }
    for name, (label, colour, line) in labels.items():
        rate = np.array([np.nan if share is None else share for share in curve[name]["rate"]])
        if np.isnan(rate).all():
            continue
        ax.plot(curve["thresholds"], rate, line, color=colour, label=label)
        if line == "-":
            low, high = np.array([(np.nan, np.nan) if pair is None else pair for pair in curve[name]["interval"]]).T
            ax.fill_between(curve["thresholds"], low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="challenge age T", ylabel="share")
    ax.set_ylim(bottom=0)
    legend(ax)


def _degradation(ax: Axes, robustness: dict, name: str, top: float) -> None:
    mae, strengths = robustness["mae"][name], robustness["strengths"][name]
    severities = list(range(1, len(mae) + 1))
    reference(ax, [1, len(mae)], [robustness["clean_mae"]] * 2)
    if all(intervals := robustness["mae_interval"][name]):
        low, high = zip(*intervals, strict=True)
        ax.fill_between(severities, low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(severities, mae, "o-", color=BLUE, markersize=3)
    ax.set_xticks(severities, [f"{strength:g}" for strength in strengths])
    ax.set(ylim=(0, top), ylabel="MAE in years")
