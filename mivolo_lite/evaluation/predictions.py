"""The predictions of a model for every sample of a data set, and their CSV."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from mivolo_lite.csv_file import text_of, written_csv
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.verification import verification
from mivolo_lite.labels import GENDERS, IDENTITY

PREDICTIONS_FILE = "predictions.csv"

_EXTRA = {"age_spread": "spread", "age_lower": "lower", "age_upper": "upper"}
"""Optional columns of the CSV, and the attributes of ``Predictions`` that they hold."""


@dataclass(frozen=True)
class TaskAnswers:
    """The outputs of a model for one task, and the truth.

    Attributes:
        kind: of the task.
        answer: (N,) index of the most probable class, or the number.
        truth: (N,) likewise, NaN where unknown.
    """

    kind: str
    answer: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of all samples, and their identities.

    Attributes:
        vector: (N, E) float32, NaN where the sample has none of the images shown.
        person: (N,) numbers of people, NaN where unknown.
    """

    vector: np.ndarray
    person: np.ndarray

    @cached_property
    def verified(self) -> dict | None:
        """The result of ``verification``."""
        return verification(self.vector, self.person)


@dataclass(frozen=True)
class Predictions:
    """Estimates and truth, one row for each sample, in the order of the index.

    Attributes:
        key: (N,) sample keys.
        age: (N,) estimated age in years, not rounded; NaN where the sample has none of the images shown.
        female: (N,) estimated probability of gender ``F``, NaN likewise.
        age_lo, age_hi: (N,) true age in years, NaN where unknown.
        gender, group: (N,) true names, None where unknown.
        tasks: the answers to the other tasks for which these samples have labels, by their names.
        spread: (N,) standard deviation of the method's distribution in years, NaN where it has none; None without any.
        lower, upper: (N,) ends of the age interval in years, NaN without an estimate; None without a calibration.
        embeddings: those of embedding tasks, by their names, where samples have identities.
        gender_logit: (N,) log odds of ``F``, NaN likewise; None where only the probability is known.
        age_std: (N,) standard deviation of the true age in years, NaN where unknown; None where no sample has one.
        identity: (N,) number of the person, as the index has it, NaN where unknown; None where no sample has one.
        unreadable: "key.input: reason" of every image that cannot be decoded; such an image counts as missing.
    """

    key: list[str]
    age: np.ndarray
    female: np.ndarray
    age_lo: np.ndarray
    age_hi: np.ndarray
    gender: list[str | None]
    group: list[str | None]
    tasks: dict[str, TaskAnswers] = field(default_factory=dict)
    spread: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    embeddings: dict[str, Embeddings] = field(default_factory=dict)
    gender_logit: np.ndarray | None = None
    unreadable: tuple[str, ...] = ()
    age_std: np.ndarray | None = None
    identity: np.ndarray | None = None

    @property
    def log_odds(self) -> np.ndarray:
        """(N,) log odds of ``F``: the model's own, or computed from the probability."""
        if self.gender_logit is not None:
            return self.gender_logit
        probability = np.clip(self.female, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
        return np.log(probability) - np.log1p(-probability)

    @property
    def missing(self) -> int:
        """Samples without an estimate."""
        return int(np.isnan(self.age).sum())

    def true_age(self, row: int) -> str:
        """A row's age in the CSV: a number, ``lo;hi``, or empty if unknown."""
        lo, hi = self.age_lo[row], self.age_hi[row]
        if np.isnan(lo):
            return ""
        return f"{lo:g}" if lo == hi else f"{lo:g};{hi:g}"


def write_csv(columns: Mapping[str | None, Predictions], path: Path) -> None:
    """``key,age,age_pred,gender,gender_prob,group``: true age (a range as ``lo;hi``), estimate, true gender, estimated
    probability of ``F``, true group; unknown values are empty. Optional columns are ``age_spread``, the standard
    deviation of the distribution, ``age_lower,age_upper``, the age interval, in years, and ``identity``, the number of
    the person, never a name.

    Args:
        columns: estimates for the same samples by the name of the inputs, which is the suffix of their columns.
        path: the file.
    """
    truth = next(iter(columns.values()))
    ends = ["" if name is None else f"_{name}" for name in columns]
    with written_csv(path) as writer:
        ages, genders = ([f"{estimate}{end}" for end in ends] for estimate in ("age_pred", "gender_prob"))
        extra = [
            (f"{title}{end}", getattr(column, name), 4)
            for title, name in _EXTRA.items()
            for end, column in zip(ends, columns.values(), strict=True)
            if getattr(column, name) is not None
        ]
        if truth.identity is not None:
            extra.append((IDENTITY, truth.identity, 0))
        writer.writerow(["key", "age", *ages, "gender", *genders, "group", *(title for title, *_ in extra)])
        for row, key in enumerate(truth.key):
            ages = [_formatted(column.age[row], 4) for column in columns.values()]
            genders = [_formatted(column.female[row], 6) for column in columns.values()]
            extras = [_formatted(values[row], digits) for _, values, digits in extra]
            writer.writerow([key, truth.true_age(row), *ages, truth.gender[row], *genders, truth.group[row], *extras])


def read_csv(path: Path) -> dict[str | None, Predictions]:
    """Read a file of ``write_csv``, with its rounding. Raises UserError for any other file."""
    rows, titles = _read_rows(path)
    names = [title.removeprefix("age_pred") for title in titles if title.startswith("age_pred")]
    needed = {"key", "age", "gender", "group"} | {f"gender_prob{name}" for name in names}
    if len(titles) == 1 and titles[0].startswith("key;"):
        raise UserError(f"{path}: its columns are separated by semicolons, as Excel saves them; evaluate again")
    if not names or not needed <= set(titles):
        raise UserError(
            f"{path}: not the predictions.csv of an evaluation: its columns are {', '.join(titles)[:200]!r}"
        )
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not row["key"] or row["gender"] not in ("", *GENDERS):
            raise UserError(f"{path}: line {line} is cut or damaged; evaluate again")
    try:
        ends = [row["age"].split(";") if row["age"] else ["nan"] for row in rows]
        lo, hi = (np.array([float(pair[end_index]) for pair in ends]) for end_index in (0, -1))
        estimated = [title for title in titles if title.startswith(("age_pred", "gender_prob", *_EXTRA))]
        columns = {title: _float_column(rows, title) for title in estimated}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path}: an age or an estimate in it is not a number; evaluate again") from None
    identity = _identities(rows, path) if IDENTITY in titles else None
    if len(set(titles)) < len(titles) or not _are_possible(lo, hi, columns):
        raise UserError(f"{path}: holds columns twice, or numbers that no estimate is; evaluate again")
    keys = [text_of(row["key"]) for row in rows]
    gender, group = ([text_of(row[name]) or None for row in rows] for name in ("gender", "group"))
    return {
        name.removeprefix("_") or None: Predictions(
            keys, columns[f"age_pred{name}"], columns[f"gender_prob{name}"], lo, hi, gender, group,
            spread=columns.get(f"age_spread{name}"), lower=columns.get(f"age_lower{name}"),
            upper=columns.get(f"age_upper{name}"), identity=identity,
        )
        for name in names
    }  # fmt: skip


def _identities(rows: list[dict[str, str]], path: Path) -> np.ndarray:
    """(N,) numbers of people, NaN where unknown. Raises UserError for anything else, as for names."""
    if wrong := next((row[IDENTITY] for row in rows if row[IDENTITY] and not row[IDENTITY].isdecimal()), None):
        raise UserError(f"{path}: {IDENTITY} {wrong!r:.50} is not the whole number of a person; evaluate again")
    return _float_column(rows, IDENTITY)


def _read_rows(path: Path) -> tuple[list[dict[str, str]], Sequence[str]]:
    """The rows of a CSV by their columns, and the names of these."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel adds a byte order mark
            reader = csv.DictReader(file)
            return list(reader), reader.fieldnames or []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV in UTF-8 ({error}); evaluate again") from None


def _are_possible(lo: np.ndarray, hi: np.ndarray, columns: Mapping[str, np.ndarray]) -> bool:
    shares = [column for title, column in columns.items() if title.startswith("gender_prob")]
    in_order = np.isnan(lo) & np.isnan(hi) | (lo <= hi)
    finite = not any(np.isinf(column).any() for column in (lo, hi, *columns.values()))
    return finite and bool(in_order.all()) and not any(((share < 0) | (share > 1)).any() for share in shares)


def _float_column(rows: list[dict[str, str]], title: str) -> np.ndarray:
    return np.array([float(row[title] or "nan") for row in rows])


def _formatted(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"
