"""The content of shards in a line, as the commands print it."""

from collections.abc import Iterator

import numpy as np

from mivolo_lite.labels import FOLD
from mivolo_lite.shards.columns import EXTRA, MOST_COLUMNS
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.wording import count_of, first_few

_MOST_FIELDS = 12


def content_of(index: ShardIndex) -> str:
    """Samples, labels and images of shards, counted."""
    labels = index.info["labels"]
    age = labels["age"]
    known_ages = f" ({age['known']} known)" if age["known"] < len(index) else ""
    phrases = [
        f"{count_of(len(index), 'sample')} in {count_of(len(index.info['shards']), 'shard')}",
        f"ages {age['min']:g} to {age['max']:g}{known_ages}" if age["known"] else "no ages",
        *(f"{count} {gender}" for gender, count in labels["gender"].items()),
        count_of(labels["face"], "face"),
        count_of(labels["body"], "body", "bodies"),
    ]
    if index.num_identities:
        phrases.append(count_of(index.num_identities, "person", "people"))
    return ", ".join(phrases)


def left_out_of(index: ShardIndex) -> Iterator[str]:
    """Lines on the contents of the shards that are not in the index."""
    info, labels = index.info, index.info["labels"]
    counts = {"age": labels["age"]["known"], "gender": sum(labels["gender"].values())}
    unlabelled = [name for name, count in counts.items() if not count]
    if unlabelled and (fields := info.get("fields")):
        listed = first_few(fields, _MOST_FIELDS)
        yield (
            f"warning: no JSON has {' or '.join(unlabelled)}; it has {listed}: rename what is meant and index again, "
            "or name it to `mivolo-lite pack shards`"
        )
    if unread := info.get("unread"):
        yield (
            f"warning: {unread['images']} images are not read, such as {unread['first']}: a sample has one face "
            "(.face.jpg or .jpg) and one body (.body.jpg), and its key ends at the first dot of a name"
        )
    yield from doubtful_of(index)
    if folders := info.get("folders_left_out"):
        yield f"warning: tars in folders are not read: {first_few(folders, _MOST_FIELDS)}; index those on their own"
    if sum(name.startswith(EXTRA) for name in index.columns) == MOST_COLUMNS:
        yield f"warning: of the labels' names, the {MOST_COLUMNS} that most samples have are kept at most"


def doubtful_of(index: ShardIndex) -> Iterator[str]:
    """Warnings on labels: numbers in some samples and words in others; samples without a fold."""
    column = index.columns.get(EXTRA + FOLD)
    if column is not None and (without := int(np.isnan(column).sum())):
        yield f"warning: {count_of(without, 'sample')} of {len(index)} have no fold, so `folds` never takes them"
    if mixed := index.info.get("mixed"):
        listed = first_few(mixed, _MOST_FIELDS)
        yield (
            f"warning: numbers in some samples and words in others, so no task can learn {listed}; write one or the "
            "other, and nothing where it is unknown"
        )
