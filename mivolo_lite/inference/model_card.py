"""The page of a published checkpoint: the model, how to load it, its training data, its errors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from mivolo_lite.card import Card, short_folder
from mivolo_lite.wording import percent

LICENCES = {
    "utkface": "UTKFace: for non-commercial research",
    "fairface": "FairFace: CC BY 4.0, to be named: Kärkkäinen and Joo, WACV 2021",
}
"""Known facts on data sets whose name is part of a folder's name."""

UNKNOWN = "not stated by whoever published this"

LIMITS = """An estimate is a guess from appearance. It is off by years, and by more for some people than for others: see
the table of errors. It can help to describe a data set, to compare methods, or to study how age shows. It is no proof
of age, and no decision about a person should rest on it alone.

`gender` and `group` are the labels of the data sets, two and a few words for what has more. They are here so that
unequal errors can be seen.

Crops must be cut as those of the training were; `mivolo-lite predict` and `Predictor` do so."""


def model_card(
    card: Card,
    repo: str,
    training: Sequence[str],
    evaluation: Mapping[str, Any] | None = None,
    licence: str = "",
    data_licences: Sequence[str] = (),
    files: Sequence[str] = (),
) -> str:
    """``README.md`` of a model repository.

    Args:
        card: of the checkpoint.
        repo: ``user/name``.
        training: folders or URLs of its training data, if known.
        evaluation: ``metrics.json`` of an evaluation; without one, the page shows the card's validation metrics.
        licence: of the weights, by its name on the hub; the card's if it is empty.
        data_licences: sentences on the data and their licences.
        files: names of the other files of the repository.
    """
    licence, has_onnx = licence or card.licence, "model.onnx" in files
    sections = [
        _head(card, licence, has_onnx),
        f"# {repo.partition('/')[2]}",
        f"Estimates {_answers(card)} of a person from {_images(card)}. Trained with mivolo_lite.",
        "## How to load",
        _loading(repo, has_onnx),
        "## What it is",
        _table(("", ""), _facts(card, licence)),
        "## Data and licences",
        "\n".join(f"* {line}" for line in _data(card, training, data_licences)),
        "## Errors",
        *_errors(card, evaluation),
        "## Intended use and limits",
        LIMITS,
    ]
    return "\n\n".join(sections) + "\n"


def _head(card: Card, licence: str, has_onnx: bool) -> str:
    tags = [f"{name}-estimation" for name in ("age", "gender") if getattr(card, name)] + ["face", "mivolo-lite"]
    tags += ["onnx"] if has_onnx else []
    head: dict[str, Any] = {"library_name": "mivolo-lite", "pipeline_tag": "image-classification", "tags": tags}
    if licence:
        head["license"] = licence if licence == licence.lower() and " " not in licence else "other"
        head |= {"license_name": licence} if head["license"] == "other" else {}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _images(card: Card) -> str:
    model = card.models[0]  # those of an ensemble have the same inputs
    both = model.get("input") == "both" or model["name"] == "dual"
    return "a crop of the face, of the body, or of both" if both else f"a crop of the {model.get('input', 'face')}"


def _answers(card: Card) -> str:
    names = [f"the {name}" for name in ("age", "gender") if getattr(card, name)]
    names += [str(task["name"]) for task in card.tasks]
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]


def _loading(repo: str, has_onnx: bool) -> str:
    onnx = "\n\n`model.onnx` runs without this package; its metadata says how to make its inputs." if has_onnx else ""
    return f"""```python
from mivolo_lite import Predictor  # pip install "mivolo-lite[hf]"

for person in Predictor.load("hf://{repo}").predict("photo.jpg")[0]:
    print(person.age, person.gender)
```

Or `mivolo-lite predict photo.jpg --checkpoint hf://{repo}`, and `--init-from hf://{repo}` to train it further.{onnx}"""


def _facts(card: Card, licence: str) -> Iterator[tuple[str, str]]:
    yield "model", card.architecture
    yield "method", str(card.method["name"])
    yield "images", f"{card.image_size} x {card.image_size} pixels"
    yield "ages", f"{card.span.get('min_age', 0)} to {card.span.get('max_age', 120)} years"
    for task in card.tasks:
        yield str(task["name"]), ", ".join(task.get("classes") or [str(task.get("kind", "classification"))])
    if card.tta != "none":
        yield "test-time augmentation", card.tta
    if card.calibration:
        level, radii = card.calibration["level"], sorted(card.calibration["radii"].values())
        years = f"{radii[0]:.1f} to {radii[-1]:.1f}" if radii else f"{card.calibration['radius']:.1f}"
        by = f", by {card.calibration['by']}" if radii else ""
        yield "age intervals", f"{percent(level)} of true ages, within {years} years of the estimate{by}"
    yield "licence of the weights", licence or UNKNOWN


def _data(card: Card, training: Sequence[str], licences: Sequence[str]) -> Iterator[str]:
    names = [short_folder(folder) for folder in training]
    yield f"trained on: {', '.join(names) if names else UNKNOWN}"
    known = [text for name, text in LICENCES.items() if any(name in folder.lower() for folder in names)]
    named = [f"to be named: {card.attribution}"] if card.attribution else []
    yield from [*named, *(licences or known)] or [f"licences of the data: {UNKNOWN}"]
    if card.data_digest:
        yield f"digest of the training shards: `{card.data_digest[:200]}`"


def _errors(card: Card, evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    metrics: Mapping[str, Any] = evaluation or card.metrics
    if not metrics.get("n"):
        yield "Not measured."
        return
    data = short_folder(evaluation["data"]["folder"]) if evaluation else "the validation images of the training"
    ends = "with 95 % intervals; small groups have none" if evaluation else "without intervals"
    yield f"On {data}: {metrics['n']:,} people of known age, {ends}. Bias is estimated minus true age."
    intervals = metrics.get("intervals") or {}
    everybody = ("everybody", {**metrics, **{f"{name}_interval": intervals.get(name) for name in ("mae", "bias")}})
    rows = [everybody]
    by_kind = (metrics.get("by") or {}).items()
    rows += [(f"{by} {name}", row) for by, names in by_kind for name, row in names.items() if row["n"]]
    yield _table(("", "people", "MAE, years", "bias, years", "CS@5"), (_error_row(name, row) for name, row in rows))
    if metrics.get("gender_accuracy") is not None:
        accuracy, interval = metrics["gender_accuracy"], intervals.get("gender_accuracy")
        yield f"Gender: {accuracy:.1%}{_ends(interval, 100, 1)} of {metrics['gender_n']:,} right."


def _error_row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    mae, bias = (f"{row[key]:.2f}{_ends(row.get(f'{key}_interval'))}" for key in ("mae", "bias"))
    return name, f"{row['n']:,}", mae, bias, f"{row['cs5']:.0%}"


def _ends(pair: Sequence[float] | None, scale: float = 1, digits: int = 2) -> str:
    return "" if not pair else f" ({scale * pair[0]:.{digits}f} to {scale * pair[1]:.{digits}f})"


def _table(heads: Sequence[str], rows: Any) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
