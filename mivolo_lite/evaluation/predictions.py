"""What a model says of every sample of a data set, each exactly once at any world size."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.labels import GENDERS, NO_CODE
from mivolo_lite.data.workers import BatchLoader
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator


@dataclass(frozen=True)
class Predictions:
    """Estimates beside the truth, one row a sample, in the order of the index.

    Attributes:
        key: (N,) sample keys.
        age: (N,) estimated age in years, not rounded.
        female: (N,) estimated probability of gender ``F``.
        age_lo, age_hi: (N,) true age in years, NaN where unknown.
        gender, group: (N,) true names, None where unknown.
    """

    key: list[str]
    age: np.ndarray
    female: np.ndarray
    age_lo: np.ndarray
    age_hi: np.ndarray
    gender: list[str | None]
    group: list[str | None]

    def write_csv(self, path: Path) -> None:
        """``key,age,age_pred,gender,gender_prob,group``: true age (a range as ``lo;hi``), estimate, true gender,
        estimated probability of ``F``, true group; unknown fields are empty."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["key", "age", "age_pred", "gender", "gender_prob", "group"])
            for row, key in enumerate(self.key):
                age, female = f"{self.age[row]:.4f}", f"{self.female[row]:.6f}"
                writer.writerow([key, self._true_age(row), age, self.gender[row], female, self.group[row]])

    def _true_age(self, row: int) -> str:
        lo, hi = self.age_lo[row], self.age_hi[row]
        if np.isnan(lo):
            return ""
        return f"{lo:g}" if lo == hi else f"{lo:g};{hi:g}"


@torch.no_grad()  # what is gathered of sharded weights in inference mode could not be trained afterwards
def predict(estimator: Estimator, loader: BatchLoader, index: ShardIndex, accelerator: Accelerator) -> Predictions:
    """Run the estimator over the index. Every rank gets all predictions.

    Raises:
        UserError: a picture cannot be decoded.
    """
    estimator.eval()
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for batch in tqdm(loader, desc="evaluating", unit="batch", leave=False, disable=_bar_hidden(accelerator)):
        if batch.broken:
            raise UserError(f"{index.folder}: {batch.broken[0]}; pack the data set again, or mend the shard")
        batch = batch.to(accelerator.device)
        with accelerator.autocast():
            output = estimator(**batch.pictures())
        age, gender = estimator.estimate(output)
        columns = (batch.sample, age.age, gender[:, GENDERS.index("F")])
        rows.append(tuple(column[batch.counted].cpu().numpy() for column in columns))
    return _assemble(gather_object(rows), index)


def _bar_hidden(accelerator: Accelerator) -> bool | None:
    """On other ranks, and by tqdm's own judgement where nobody looks."""
    return None if accelerator.is_main_process else True


def _assemble(rows: list[tuple[np.ndarray, ...]], index: ShardIndex) -> Predictions:
    sample, age, female = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(sample)
    assert np.array_equal(sample[order], np.arange(len(index))), "every sample is counted exactly once"
    columns = index.columns
    return Predictions(
        [index.key(number) for number in range(len(index))],
        age[order].astype(np.float64),
        female[order].astype(np.float64),
        columns["age_lo"].astype(np.float64),
        columns["age_hi"].astype(np.float64),
        _names(columns["gender"], GENDERS),
        _names(columns["group"], index.groups),
    )


def _names(codes: np.ndarray, names) -> list[str | None]:
    return [None if code == NO_CODE else names[code] for code in codes.tolist()]
