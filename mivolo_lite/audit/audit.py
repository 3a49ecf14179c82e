"""Audits indexed shards: writes a page, tables and an exclusion list."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mivolo_lite.audit.duplicates import COPY_TYPES, find_pairs
from mivolo_lite.audit.findings import FLAGS, Flag, Group, exclusions, flags, group_pairs, overlap
from mivolo_lite.audit.fingerprints import Fingerprints, read_fingerprints
from mivolo_lite.audit.report import write_report
from mivolo_lite.audit.samples import Samples
from mivolo_lite.audit.workers import shard_workers
from mivolo_lite.csv_file import written_csv
from mivolo_lite.errors import UserError
from mivolo_lite.files import result_folder, write_json
from mivolo_lite.shards.exclude import write_exclusions
from mivolo_lite.shards.members import IMAGES
from mivolo_lite.wording import count_of

RESULT_FILES = REPORT_FILE, AUDIT_FILE, PAIRS_FILE, FLAGGED_FILE = (
    "report.html", "audit.json", "pairs.csv", "flagged.csv",
)  # fmt: skip


@dataclass(frozen=True)
class AuditOptions:
    """The thresholds of copies and of poor images.

    Args:
        distance: largest Hamming distance of the 64-bit perceptual hashes of two copies.
        similarity: smallest correlation of the fine patterns of two aligned copies.
        age_tolerance: largest difference in years between the ages of copies; beyond it, all of them are left out.
        min_side: smallest shorter side in pixels; smaller crops are tiny.
        max_blur: largest blur, from 0 to 1; crops above are blurred.
        show: most groups or images of each kind on the page.
    """

    distance: int = 9
    similarity: float = 0.9
    age_tolerance: float = 5.0
    min_side: int = 32
    max_blur: float = 0.6
    show: int = 60

    def __post_init__(self) -> None:
        if not 0 <= self.distance <= 16:
            raise UserError(f"--distance {self.distance}: give a number of bits from 0 to 16")
        for name in ("similarity", "max_blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name} {getattr(self, name)}: give a number from 0 to 1")
        for name in ("age_tolerance", "min_side", "show"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} {getattr(self, name)}: give 0 or more")


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        samples: the data.
        pairs: the links between copies (``PAIR``), by ``face`` and ``body``.
        groups: samples that are copies of each other.
        flagged: poor images.
        excluded: (sample, reason) of the samples in the list of ``--fix``.
        shared_keys: keys of excluded samples that a sample to keep in another folder has as well.
        out: folder of the files.
        fix: the exclusion list that was written, or None.
    """

    samples: Samples
    options: AuditOptions
    pairs: dict[str, np.ndarray]
    groups: list[Group]
    flagged: list[Flag]
    excluded: list[tuple[int, str]]
    shared_keys: set[str]
    out: Path
    fix: Path | None


def audit(
    folders: Sequence[Path | str],
    out: Path | str,
    fix: Path | str | None = None,
    workers: int = 1,
    options: AuditOptions = AuditOptions(),  # noqa: B008 (it is frozen)
) -> Audit:
    """Read every image once, and write ``report.html``, ``audit.json``, ``pairs.csv`` and ``flagged.csv``.

    A sample takes about 200 bytes of memory and each of its images 1 KiB of disk while the audit runs.

    Args:
        folders: of indexed shards; of copies, the one in the first folder is kept.
        out: folder for the results; created if it is missing.
        fix: also write an exclusion list, for ``pack --exclude``.
        workers: processes that read images.
        options: the thresholds.

    Raises:
        UserError: the data cannot be read; ``out`` has other results, or cannot be written.
    """
    samples, out = Samples(folders), Path(out)
    result_folder(out, RESULT_FILES)
    prints: dict[str, Fingerprints] = {}
    pairs: dict[str, np.ndarray] = {}
    with shard_workers(samples.indexes, workers) as map_tasks:
        for image in IMAGES:
            prints[image] = read_fingerprints(samples, image, map_tasks, out)
            pairs[image] = find_pairs(samples, image, prints[image], map_tasks, options.distance, options.similarity)
            # Unmapped, so that the file can be removed.
            prints[image] = prints[image]._replace(thumbnails=np.zeros(0, np.uint8))
    groups = group_pairs(np.concatenate(list(pairs.values())), samples)
    flagged = [flag for name in IMAGES for flag in flags(prints[name], name, options.min_side, options.max_blur)]
    excluded = sorted(exclusions(groups, flagged, prints, samples, options.age_tolerance))
    shared_keys = _shared_keys(samples, {sample for sample, _ in excluded})
    result = Audit(samples, options, pairs, groups, flagged, excluded, shared_keys, out, Path(fix) if fix else None)
    _write(result, prints)
    return result


def facts(result: Audit, prints: dict[str, Fingerprints]) -> dict:
    """The numbers of an audit for ``audit.json``."""
    samples, groups, tolerance = result.samples, result.groups, result.options.age_tolerance
    return {
        "options": asdict(result.options),
        "folders": [
            {
                "folder": name,
                "digest": index.digest,
                "samples": len(index),
                "rejected_by_index": index.info["rejected"],
                "labels": index.info["labels"] | {"whipple": whipple(index.columns["age_lo"], index.columns["age_hi"])},
            }
            for name, index in zip(samples.names, samples.indexes, strict=True)
        ],
        "images": {name: _measured(prints[name]) for name in IMAGES if len(prints[name].records)},
        "pairs": {name: _counts(pairs["kind"], COPY_TYPES) for name, pairs in result.pairs.items() if len(pairs)},
        "groups": {
            "groups": len(groups),
            "samples": sum(len(group.members) for group in groups),
            "across_folders": sum(len(set(samples.folder[group.members])) > 1 for group in groups),
            "age_differs": sum(group.age_gap > 0 for group in groups),
            "age_differs_beyond_tolerance": sum(group.age_gap > tolerance for group in groups),
            "gender_differs": sum(group.genders > 1 for group in groups),
            "group_differs": sum(group.groups > 1 for group in groups),
            "contradicting": sum(group.contradicts(tolerance) for group in groups),
        },
        "overlap": overlap(groups, samples).tolist(),
        "flagged": {flag: count for flag in FLAGS if (count := sum(image.flag == flag for image in result.flagged))},
        "excluded": len(result.excluded),
        "excluded_names_of_others": len(result.shared_keys),
    }


def whipple(age_lo: np.ndarray, age_hi: np.ndarray) -> float | None:
    """Whipple's index of ages (N,) from 23 to 62 that end in 0 or 5: 100 if all last digits are equally frequent, 500
    if there are only these. Ranges do not count. None without such ages."""
    ages = np.rint(age_lo[age_lo == age_hi])
    ages = ages[(ages >= 23) & (ages <= 62)]
    return round(500 * float((ages % 5 == 0).mean()), 1) if len(ages) else None


def summary(result: Audit) -> str:
    """The result as lines to print."""
    statistics = json.loads((result.out / AUDIT_FILE).read_text(encoding="utf-8"))
    groups, names = statistics["groups"], result.samples.names
    types: Counter[str] = Counter()
    for counts in statistics["pairs"].values():
        types.update(counts)
    links = ", ".join(f"{types[kind]} {kind}" for kind in COPY_TYPES if types[kind]) or "none"
    lines = [
        f"{count_of(len(result.samples), 'sample')} in {count_of(len(names), 'folder')}",
        f"copies: {count_of(groups['samples'], 'sample')} in {count_of(groups['groups'], 'group')} (links: {links})",
        f"labels of copies: {groups['age_differs']} groups differ in age, {groups['age_differs_beyond_tolerance']} by "
        f"more than {result.options.age_tolerance:g} years, {groups['gender_differs']} in gender, "
        f"{groups['group_differs']} in group",
    ]
    lines += _shared(statistics["overlap"], result.samples)
    flagged = ", ".join(f"{count} {flag}" for flag, count in statistics["flagged"].items())
    lines.append(f"poor images: {flagged or 'none'}")
    if result.fix:
        lines.append(f"{result.fix}: {len(result.excluded)} samples to leave out, for `pack --exclude {result.fix}`")
        if result.shared_keys:
            lines.append(
                f"warning: {len(result.shared_keys)} of these names also belong to samples that should stay; they are "
                "written as FOLDER/NAME, which `index`, `evaluate` and `data.exclude` know, and `pack` does not"
            )
    return "\n".join([*lines, f"written to {result.out}: {', '.join(RESULT_FILES)}"])


def _shared(overlap: list[list[int]], samples: Samples) -> list[str]:
    """A line for each pair of folders with common copies, and one that counts the other pairs."""
    pairs = [(later, earlier) for later in range(len(overlap)) for earlier in range(later)]
    lines = [
        f"samples of {samples.names[later]} with a copy in {samples.names[earlier]}: {overlap[later][earlier]} of "
        f"{len(samples.indexes[later])}"
        for later, earlier in pairs
        if overlap[later][earlier]
    ]
    without = len(pairs) - len(lines)
    return [*lines, f"pairs of folders without copies: {without} of {len(pairs)}"] if pairs else []


def _write(result: Audit, prints: dict[str, Fingerprints]) -> None:
    statistics = facts(result, prints)
    if result.fix:
        write_exclusions(result.fix, ((_name(result, sample), reason) for sample, reason in result.excluded))
    _write_pairs(result.out / PAIRS_FILE, result)
    _write_flagged(result.out / FLAGGED_FILE, result)
    files = AUDIT_FILE, PAIRS_FILE, FLAGGED_FILE
    write_report(result.out / REPORT_FILE, statistics, result.samples, result.groups, result.flagged, files)
    write_json(result.out / AUDIT_FILE, statistics)


def _counts(codes: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    return {name: int((codes == code).sum()) for code, name in enumerate(names)}


def _measured(prints: Fingerprints) -> dict:
    """Percentiles of the measurements on readable images."""
    records = prints.records[prints.records["readable"]]
    measured: dict = {"images": len(prints.records), "readable": len(records)}
    if len(records):
        side = np.minimum(records["width"], records["height"])
        for name, values in (("shorter_side", side), ("contrast", records["contrast"]), ("blur", records["blur"])):
            cuts = np.percentile(values, [0, 1, 25, 50, 75, 99, 100])
            measured[name] = dict(zip(("min", "p1", "p25", "p50", "p75", "p99", "max"), cuts.round(4), strict=True))
    return measured


def _shared_keys(samples: Samples, excluded: set[int]) -> set[str]:
    """Keys of excluded samples that a sample to keep in another folder has as well."""
    if len(samples.names) == 1:
        return set()
    staying = (sample for sample in range(len(samples)) if sample not in excluded)
    return {samples.key(sample) for sample in excluded}.intersection(map(samples.key, staying))


def _name(result: Audit, sample: int) -> str:
    """The name of a sample in an exclusion list: its key, with its folder if the key is not unique."""
    key, (folder, _) = result.samples.key(sample), result.samples.locate(sample)
    return f"{result.samples.indexes[folder].folder}/{key}" if key in result.shared_keys else key


def _write_pairs(path: Path, result: Audit) -> None:
    with written_csv(path) as writer:
        columns = ("folder", "key", "age", "gender", "group")
        writer.writerow(
            [
                "image",
                "kind",
                "distance",
                "similarity",
                "age_gap",
                *(f"{name}_{end}" for end in "ab" for name in columns),
            ]
        )
        for image, pairs in result.pairs.items():
            for pair in pairs:
                ends = [pair["first"], pair["second"]]
                lo, hi = result.samples.age_lo[ends], result.samples.age_hi[ends]
                gap = "" if np.isnan(lo).any() else f"{max(float(lo.max() - hi.min()), 0.0):g}"
                row = [image, COPY_TYPES[pair["kind"]], pair["distance"], f"{pair['similarity']:.3f}", gap]
                writer.writerow(row + _columns(result.samples, ends[0]) + _columns(result.samples, ends[1]))


def _columns(samples: Samples, sample: int) -> list[str]:
    return [samples.names[samples.folder[sample]], samples.key(sample), *samples.label_texts(sample)]


def _write_flagged(path: Path, result: Audit) -> None:
    with written_csv(path) as writer:
        writer.writerow(["image", "flag", "value", "reason", "folder", "key"])
        for flag in result.flagged:
            value = "" if np.isnan(flag.value) else f"{flag.value:.4g}"
            location = [result.samples.names[result.samples.folder[flag.sample]], result.samples.key(flag.sample)]
            writer.writerow([flag.image, flag.flag, value, flag.reason, *location])
