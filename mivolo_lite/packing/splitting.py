"""Divides samples into splits and folds, without separating a person or copies of an image."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Literal

import numpy as np

from mivolo_lite.connected import first_connected
from mivolo_lite.errors import UserError
from mivolo_lite.labels import FOLD, IDENTITY
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.temporary_samples import TemporarySample

_SHARE = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<share>[0-9]*\.?[0-9]+)")  # the name becomes a folder
_USUAL, _UNDIVIDED = {"train": 0.9, "val": 0.1}, {"all": 1.0}


def parse_split(text: str) -> dict[str, float]:
    """``"train=0.9,val=0.1"`` as shares by name. Raises UserError if it is invalid."""
    shares = {}
    for entry in text.split(","):
        match = _SHARE.fullmatch(entry.strip())
        if match is None or match["name"] in shares:
            raise UserError(f"--split {text!r}: write it as train=0.9,val=0.1")
        shares[match["name"]] = float(match["share"])
    return shares


@dataclass(frozen=True)
class Splitting:
    """Options of dividing the samples.

    Attributes:
        shares: share of the samples by split. None keeps published splits; without these it is a single split if there
            are folds, else 0.9 ``train`` and 0.1 ``val``.
        by: keeps together all images of a ``person``, if known, or an ``image`` and its exact copies.
        stratify: ``age`` gives every split and fold the same age distribution. With ``no``, added images do not change
            the splits of the others.
        folds: number of folds in each split, written to each sample's JSON.
    """

    shares: Mapping[str, float] | None = None
    by: Literal["person", "image"] = "person"
    stratify: Literal["no", "age"] = "no"
    folds: int | None = None

    def __post_init__(self) -> None:
        if self.shares is not None and (abs(sum(self.shares.values()) - 1) > 1e-9 or min(self.shares.values()) <= 0):
            shares = ", ".join(map(str, self.shares.values()))
            raise UserError(f"--split: the shares {shares} must be positive and add up to 1")
        if self.folds is not None and not 2 <= self.folds <= 1000:
            raise UserError(f"--folds {self.folds}: give a number from 2 to 1000")

    def check(self, source: Source) -> None:
        """Raise UserError for an option without effect on published splits or folds."""
        if self.shares is not None or self.folds is not None or not (source.splits or source.has_folds):
            return
        for option, value, usual in (("--stratify", self.stratify, "no"), ("--split_by", self.by, "person")):
            if value != usual:
                raise UserError(
                    f"{option} {value}: the data set names its own {'splits' if source.splits else 'folds'}, which are "
                    "kept; give shares, as in --split train=0.9,val=0.1, or leave the option out"
                )

    def divide(self, samples: Sequence[TemporarySample], source: Source) -> dict[str, list[TemporarySample]]:
        """The samples of every split, in their final order. Raises UserError if a split or a fold is empty."""
        if self.stratify == "age" and all(sample.labels.age is None for sample in samples):
            raise UserError("--stratify age: no sample has an age; leave it out")
        ordered = sorted(samples, key=lambda sample: (sample.rank, sample.key))
        if self.shares is None and source.splits:
            splits = {name: [sample for sample in ordered if sample.split == name] for name in source.splits}
            advice = "give shares, as in --split train=0.9,val=0.1, to divide all anew"
        else:
            shares = self.shares or (_UNDIVIDED if self.folds or source.has_folds else _USUAL)
            advice = "give it a larger share"
            splits = {name: [] for name in shares}
            for sample, index in zip(ordered, self._assign(ordered, list(shares.values())), strict=True):
                splits[list(shares)[index]].append(sample)
        for name, chosen in splits.items():
            if not chosen:
                raise UserError(f"--split: no sample of {len(samples)} comes into {name}; {advice}")
        return {name: self._with_folds(name, chosen) for name, chosen in splits.items()}

    def _with_folds(self, name: str, samples: list[TemporarySample]) -> list[TemporarySample]:
        if not self.folds:
            return samples
        folds = self._assign(samples, [1 / self.folds] * self.folds, b"fold")
        if empty := set(range(self.folds)) - set(folds):
            raise UserError(f"--folds {self.folds}: fold {min(empty)} of {name} stays empty; ask for fewer folds")
        return [
            replace(sample, labels=replace(sample.labels, extra=sample.labels.extra | {FOLD: fold}))
            for sample, fold in zip(samples, folds, strict=True)
        ]

    def _assign(self, samples: Sequence[TemporarySample], shares: Sequence[float], salt: bytes = b"") -> list[int]:
        """The index of each sample's split; ``salt`` seeds the hash."""
        lots = _lots_of_people(samples) if self.by == "person" else [sample.rank for sample in samples]
        lots = [hashlib.sha256(salt + lot).digest()[:8] for lot in lots] if salt else lots
        if self.stratify == "age":
            split_of = _stratified(samples, lots, shares)
            return [split_of[lot] for lot in lots]
        ends = [*list(accumulate(shares))[:-1], np.inf]
        return np.searchsorted(ends, [int.from_bytes(lot, "big") / 2**64 for lot in lots], side="right").tolist()


def _lots_of_people(samples: Sequence[TemporarySample]) -> list[bytes]:
    """The lot of each sample: equal for a person's images, and for exact copies of an image under any names."""
    first_lot: dict[bytes, bytes] = {}
    pairs = ((sample.lot, first_lot.setdefault(sample.rank, sample.lot)) for sample in samples)
    common = first_connected(pair for pair in pairs if pair[0] != pair[1])
    return [common.get(sample.lot, sample.lot) for sample in samples]


def _stratified(samples: Sequence[TemporarySample], lots: Sequence[bytes], shares: Sequence[float]) -> dict[bytes, int]:
    """The split of each group of samples: in the order of their mean ages, each goes where most samples are missing."""
    ages: dict[bytes, list[float]] = defaultdict(list)
    for sample, lot in zip(samples, lots, strict=True):
        ages[lot].append(np.inf if sample.labels.age is None else sum(sample.labels.age) / 2)
    split_of, counts, total = {}, [0] * len(shares), 0
    for lot in sorted(ages, key=lambda lot: (round(sum(ages[lot]) / len(ages[lot]), 0), lot)):
        total += len(ages[lot])
        split = max(range(len(shares)), key=lambda split: shares[split] * total - counts[split])
        split_of[lot] = split
        counts[split] += len(ages[lot])
    return split_of


def people_in_several(splits: Mapping[str, Sequence[TemporarySample]]) -> Iterator[str]:
    """Lines with the number of people in more than one split, and in more than one fold.

    Empty without identities, or with a single split or fold.
    """
    folds: dict[str, list[TemporarySample]] = defaultdict(list)
    for sample in chain.from_iterable(splits.values()):
        if (fold := sample.labels.extra.get(FOLD)) is not None:
            folds[str(fold)].append(sample)
    for name, parts in (("splits", splits), ("folds", folds)):
        people = [{sample.labels.extra.get(IDENTITY) for sample in samples} - {None} for samples in parts.values()]
        if len(people) > 1 and any(people):
            counts = Counter(person for of_part in people for person in of_part)
            yield f"{sum(count > 1 for count in counts.values())} people are in two {name}, of {len(counts)}"
