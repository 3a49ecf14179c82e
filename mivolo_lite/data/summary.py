"""What lies in shards, in a line, as the commands print it."""

from mivolo_lite.data.index import ShardIndex


def content_of(index: ShardIndex) -> str:
    """Samples, labels and images of shards, counted."""
    labels = index.info["labels"]
    age, people = labels["age"], labels.get("identity", {}).get("people")
    known = f" ({age['known']} known)" if age["known"] < len(index) else ""
    parts = [
        f"{len(index)} samples in {len(index.info['shards'])} shards",
        f"ages {age['min']:g} to {age['max']:g}{known}" if age["known"] else "no ages",
        *(f"{count} {gender}" for gender, count in labels["gender"].items()),
        f"{labels['face']} faces",
        f"{labels['body']} bodies",
    ]
    return ", ".join([*parts, f"{people} people"] if people else parts)
