"""Findings from pairs and fingerprints: contradicting labels, shared images, samples to leave out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mivolo_lite.audit.fingerprints import Fingerprints
from mivolo_lite.audit.quality import BLANK_CONTRAST
from mivolo_lite.audit.samples import Samples
from mivolo_lite.connected import first_connected
from mivolo_lite.labels import GENDERS, NO_CODE

FLAGS = ("unreadable", "blank", "tiny", "blurred")


@dataclass(frozen=True)
class Flag:
    """A poor image.

    Attributes:
        sample: its number.
        image: ``face`` or ``body``.
        flag: one of ``FLAGS``.
        value: its contrast, its shorter side in pixels or its blur; NaN if it is unreadable.
        reason: as text.
    """

    sample: int
    image: str
    flag: str
    value: float
    reason: str


def flags(prints: Fingerprints, image: str, min_side: int, max_blur: float) -> list[Flag]:
    """Every flagged image with its first matching flag, the worst of each flag first."""
    records = prints.records
    sample = records["sample"]
    flagged = [Flag(int(sample[row]), image, "unreadable", np.nan, reason) for row, reason in prints.reasons.items()]
    unflagged = records["readable"].copy()
    side = np.minimum(records["width"], records["height"])
    for flag, value, is_hit, reason in (
        ("blank", records["contrast"], records["contrast"] < BLANK_CONTRAST, "grey levels vary by {:.1f}"),
        ("tiny", side, side < min_side, "shorter side {:.0f} px"),
        ("blurred", records["blur"], records["blur"] > max_blur, "blur {:.2f}"),
    ):
        rows = np.flatnonzero(is_hit & unflagged)
        unflagged[rows] = False
        rows = rows[np.argsort(-value[rows] if flag == "blurred" else value[rows], kind="stable")]
        flagged += [Flag(int(sample[row]), image, flag, float(value[row]), reason.format(value[row])) for row in rows]
    return flagged


@dataclass(frozen=True)
class Group:
    """Samples that show the same photograph.

    Attributes:
        members: their numbers, ascending.
        pairs: the links between them, of ``PAIR``.
        age_gap: years between the youngest and the oldest label; for ranges between the nearer ends, 0 if they overlap.
        genders, groups: number of different known labels.
    """

    members: list[int]
    pairs: np.ndarray
    age_gap: float
    genders: int
    groups: int

    @property
    def differs(self) -> bool:
        """Whether any label differs."""
        return self.age_gap > 0 or self.genders > 1 or self.groups > 1

    def contradicts(self, age_tolerance: float) -> bool:
        """Whether the labels contradict each other: ages too far apart, or both genders."""
        return self.age_gap > age_tolerance or self.genders > 1


def group_pairs(pairs: np.ndarray, samples: Samples) -> list[Group]:
    """The samples that pairs connect, in the order of their first members."""
    first_of = first_connected(zip(pairs["first"].tolist(), pairs["second"].tolist(), strict=True))
    members: dict[int, list[int]] = {}
    for sample in sorted(first_of):
        members.setdefault(first_of[sample], []).append(sample)
    links: dict[int, list[int]] = {}
    for row, first in enumerate(pairs["first"].tolist()):
        links.setdefault(first_of[first], []).append(row)
    return [_group(group, pairs[links[representative]], samples) for representative, group in members.items()]


def _group(members: list[int], pairs: np.ndarray, samples: Samples) -> Group:
    genders, groups = samples.gender[members], samples.group[members]
    return Group(
        members,
        pairs,
        age_gap(samples, members),
        len(set(genders[genders != NO_CODE].tolist())),
        len(set(groups[groups != NO_CODE].tolist())),
    )


def age_gap(samples: Samples, members: list[int]) -> float:
    """Years by which the ages of samples differ; 0 if their ranges overlap or at most one is known."""
    lo, hi = samples.age_lo[members], samples.age_hi[members]
    is_known = ~np.isnan(lo)
    return max(float(lo[is_known].max() - hi[is_known].min()), 0.0) if is_known.any() else 0.0


def overlap(groups: list[Group], samples: Samples) -> np.ndarray:
    """(F, F) number of samples of one folder with a copy in another; on the diagonal, in the same folder."""
    shared = np.zeros((len(samples.names), len(samples.names)), np.int64)
    for group in groups:
        counts = np.bincount(samples.folder[group.members], minlength=len(shared))
        has_copy = counts[None, :] - np.diag(np.ones(len(shared), np.int64)) > 0
        shared += counts[:, None] * has_copy
    return shared


def exclusions(
    groups: list[Group], flagged: list[Flag], prints: dict[str, Fingerprints], samples: Samples, age_tolerance: float
) -> Iterator[tuple[int, str]]:
    """Samples to leave out, each once, with the reason.

    One copy is kept: in the first folder, then the largest, then the sharpest. If the labels contradict each other,
    none is kept. Blurred and tiny crops are kept.
    """
    broken = {flag.sample: flag for flag in flagged if flag.flag in ("unreadable", "blank")}
    excluded = set(broken)
    yield from ((flag.sample, f"{flag.flag} {flag.image}: {flag.reason}") for flag in broken.values())
    for group in groups:
        members = [sample for sample in group.members if sample not in excluded]
        if group.contradicts(age_tolerance):
            reason = f"labels of {len(group.members)} copies contradict each other: {differences(group, samples)}"
            yield from ((sample, reason) for sample in members)
        elif members:
            best = min(members, key=lambda sample: _keeping_order(sample, prints, samples))
            name = samples.key(best)
            yield from ((sample, f"copy of {name}") for sample in members if sample != best)


def _keeping_order(sample: int, prints: dict[str, Fingerprints], samples: Samples) -> tuple:
    """Sort key of copies: the one to keep has the smallest."""
    size, blurs = 0, 0.0
    for fingerprints in prints.values():
        row = np.searchsorted(fingerprints.records["sample"], sample)
        if row < len(fingerprints.records) and fingerprints.records["sample"][row] == sample:
            size += int(fingerprints.records["width"][row]) * int(fingerprints.records["height"][row])
            blurs += float(fingerprints.records["blur"][row])
    return samples.locate(sample)[0], -size, blurs, sample


def differences(group: Group, samples: Samples) -> str:
    """The labels that differ within a group, as text."""
    words = []
    if group.age_gap > 0:
        lo, hi = samples.age_lo[group.members], samples.age_hi[group.members]
        words.append(f"age {np.nanmin(lo):g} to {np.nanmax(hi):g}")
    if group.genders > 1:
        words.append("gender " + " and ".join(GENDERS))
    if group.groups > 1:
        codes = sorted(set(samples.group[group.members].tolist()) - {NO_CODE})
        words.append("group " + " and ".join(samples.groups[code] for code in codes))
    return ", ".join(words)
