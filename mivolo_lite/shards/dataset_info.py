"""What ``dataset.json`` says of scanned shards: their counts, digests and label statistics."""

import hashlib
import json
from collections import Counter
from typing import Any

import numpy as np

from mivolo_lite.labels import GENDERS, IDENTITY, MAX_AGE
from mivolo_lite.shards.columns import finite_or_none
from mivolo_lite.shards.members import IMAGES
from mivolo_lite.shards.sample import Labels
from mivolo_lite.shards.schema import SCHEMA_VERSION
from mivolo_lite.shards.tar_scan import MOST_FIELDS, ShardScan


def dataset_info(
    scans: list[ShardScan], labels: list[Labels], groups: list[str], crop_policy: dict[str, Any], excluded: list[str]
) -> dict[str, Any]:
    """The content of ``dataset.json``.

    Args:
        scans: of the tars, without the samples that were left out.
        labels: of all their samples.
        groups: names in the order of their codes.
        crop_policy: how the crops were made, empty where that is unknown.
        excluded: keys of the samples that were left out; part of the digest.
    """
    shards = [
        {"file": scan.name, "samples": len(scan.samples), "bytes": scan.size, "sha256": scan.sha256} for scan in scans
    ]
    identified_by = json.dumps([shards, excluded] if excluded else shards)
    unread = [name for scan in scans for name in scan.unread]
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": hashlib.sha256(identified_by.encode()).hexdigest(),
        "samples": len(labels),
        "rejected": sum(len(scan.rejected) for scan in scans),
        **({"unread": {"images": len(unread), "first": unread[0]}} if unread else {}),
        "crop_policy": crop_policy,
        "groups": groups,
        "labels": _statistics(scans, labels, groups),
        **_fields(scans, labels),
        "shards": shards,
    }


def _fields(scans: list[ShardScan], labels: list[Labels]) -> dict[str, list[str]]:
    """The fields of the samples' JSON if no sample has an age or a gender, which may have other names."""
    if any(label.age is not None for label in labels) and any(label.gender is not None for label in labels):
        return {}
    return {"fields": sorted({name[:100] for scan in scans for name in scan.fields})[:MOST_FIELDS]}


def _statistics(scans: list[ShardScan], labels: list[Labels], groups: list[str]) -> dict[str, Any]:
    ages = np.array([sum(label.age) / 2 for label in labels if label.age is not None])
    gender_counts, group_counts = (Counter(getattr(label, name) for label in labels) for name in ("gender", "group"))
    known_identities = (finite_or_none(label.extra.get(IDENTITY)) for label in labels)
    identities = Counter(str(identity) for identity in known_identities if identity is not None)
    tens = np.arange(0, MAX_AGE + 10, 10)
    counts, _ = np.histogram(ages, bins=np.append(tens, MAX_AGE + 10))
    ranges = sum(label.age is not None and label.age[0] < label.age[1] for label in labels)
    age: dict[str, Any] = {"known": len(ages), "ranges": ranges}
    if len(ages):
        age |= {"min": ages.min(), "max": ages.max(), "mean": round(float(ages.mean()), 4)}
        age["by_decade"] = {f"{lo}-{lo + 9}": int(n) for lo, n in zip(tens, counts, strict=True) if n}
    return {
        **{
            name: sum(sample.spans[member][1] > 0 for scan in scans for sample in scan.samples)
            for member, name in enumerate(IMAGES)
        },
        "age": age,
        "gender": {name: gender_counts[name] for name in GENDERS},
        "group": {name: group_counts[name] for name in groups},
        "identity": {"known": sum(identities.values()), "people": len(identities)},
    }
