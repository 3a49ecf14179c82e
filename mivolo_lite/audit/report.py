"""The audit as a page."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mivolo_lite.audit.duplicates import COPY_TYPES
from mivolo_lite.audit.findings import FLAGS, Flag, Group
from mivolo_lite.audit.samples import Samples
from mivolo_lite.files import write_text
from mivolo_lite.images.jpeg import BrokenJpeg, decode
from mivolo_lite.images.letterbox import fitted, resize
from mivolo_lite.labels import GENDERS
from mivolo_lite.reporting.images import data_address
from mivolo_lite.reporting.page import (
    Card,
    Cards,
    Cell,
    Gallery,
    Image,
    Mark,
    Notes,
    Page,
    Part,
    Section,
    Table,
    Tables,
    Tile,
    Tiles,
)
from mivolo_lite.reporting.provenance import provenance
from mivolo_lite.shards.members import IMAGES
from mivolo_lite.shards.storage import ShardFiles

_SIDE = 144
_MEMBERS = 8
"""Most copies of an image on the page."""

_LEADS = {
    "unreadable": "Bytes that are no whole JPEG. They count as absent in training and in evaluations.",
    "blank": "One colour and nothing else.",
    "tiny": "A shorter side below {min_side} px.",
    "blurred": "A blur above {max_blur:g} (Crete et al., 2007), the most blurred first. Poor, not wrong: they stay.",
}


def write_report(
    path: Path,
    numbers: dict,
    samples: Samples,
    groups: Sequence[Group],
    flagged: Sequence[Flag],
    files: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        numbers: what ``audit.json`` holds.
        samples: the data.
        groups: samples that are copies of each other.
        flagged: poor images.
        files: names of the results beside the page, to link to.
    """
    thumbnail = _Thumbnails(samples)
    sections = [
        _summary(numbers, samples),
        *_overlap(numbers, samples),
        *_copies(numbers, samples, groups, thumbnail),
        *_poor(numbers, samples, flagged, thumbnail),
        _labels(numbers, samples),
        _method(numbers),
    ]
    write_text(path, Page("Data audit", [Part(sections)], provenance() | _about(numbers, samples), files).html())


class _Thumbnails:
    """Small images as ``data:`` addresses."""

    def __init__(self, samples: Samples):
        self.samples = samples
        self.files = [ShardFiles(index) for index in samples.indexes]

    def __call__(self, sample: int, name: str | None = None) -> str:
        """A sample's image, empty if it cannot be decoded; without a name the face, or else the body."""
        folder, local_sample = self.samples.locate(sample)
        columns = self.samples.indexes[folder].columns
        name = name or next(name for name in IMAGES if columns[f"{name}_size"][local_sample] > 0)
        try:
            pixels = decode(self.files[folder].read(name, local_sample))
        except BrokenJpeg:
            return ""
        height, width = pixels.shape[:2]
        if max(height, width) > _SIDE:
            pixels = resize(pixels, *fitted(width, height, _SIDE))
        return data_address(pixels)


def _about(numbers: dict, samples: Samples) -> dict[str, str]:
    folders = zip(samples.names, samples.indexes, strict=True)
    sides = [
        f"{name} {measured['shorter_side']['p50']:g} px"
        for name, measured in numbers["images"].items()
        if "shorter_side" in measured
    ]
    return {
        "Data": "; ".join(f"{name} ({len(index):,} samples, digest {index.digest[:12]})" for name, index in folders),
        "Image size": f"{', '.join(sides)} (median of the shorter sides)" if sides else "",
    }


def _summary(numbers: dict, samples: Samples) -> Section:
    groups, flagged = numbers["groups"], numbers["flagged"]
    tolerance, beyond = numbers["options"]["age_tolerance"], groups["age_differs_beyond_tolerance"]
    tiles = [
        Tile("Samples with a copy", f"{groups['samples']:,}", [f"in {groups['groups']:,} sets of copies"]),
        Tile(
            "Copies with different ages",
            f"{groups['age_differs']:,}",
            [f"sets, {beyond:,} of them by more than {tolerance:g} years"],
        ),
        Tile("Copies with both genders", f"{groups['gender_differs']:,}", ["sets"]),
        Tile("Poor images", f"{sum(flagged.values()):,}", [f"{count:,} {flag}" for flag, count in flagged.items()]),
        Tile("Samples to leave out", f"{numbers['excluded']:,}", [f"of {len(samples):,}, by --fix"]),
    ]
    if len(samples.names) > 1:
        tiles.insert(
            1, Tile("Copies across folders", f"{groups['across_folders']:,}", ["sets in more than one folder"])
        )
    return Section("Summary", [Tiles(tiles)])


def _overlap(numbers: dict, samples: Samples) -> Iterator[Section]:
    if len(samples.names) < 2:
        return
    rows: list[list[str | Cell]] = [
        [name, f"{len(index):,}", *(Cell(f"{count:,}", _percent(count, len(index))) for count in counts)]
        for name, index, counts in zip(samples.short_names, samples.indexes, numbers["overlap"], strict=True)
    ]
    yield Section(
        "Shared between folders",
        [Table(["", "samples", *samples.short_names], rows)],
        "How many samples of each row have a copy in each column. A copy of a training image in a validation set is "
        "estimated from memory.",
    )


def _copies(numbers: dict, samples: Samples, groups: Sequence[Group], thumbnail: _Thumbnails) -> Iterator[Section]:
    tolerance = numbers["options"]["age_tolerance"]
    contradicting = [group for group in groups if group.contradicts(tolerance)]
    rest = [group for group in groups if not group.contradicts(tolerance)]
    across = [group for group in rest if len(set(samples.folder[group.members])) > 1]
    within = [group for group in rest if len(set(samples.folder[group.members])) == 1]
    for title, lead, listed in (
        (
            "Contradicting copies",
            f"The same photograph with ages more than {tolerance:g} years apart, or with both genders, the largest "
            "difference first. Nobody can tell which label is right, so --fix leaves all of them out.",
            contradicting,
        ),
        ("Copies in different folders", "One copy stays: in the folder named first.", across),
        ("Copies within a folder", "One copy stays: the largest, then the sharpest.", within),
    ):
        listed = sorted(listed, key=lambda group: (-group.age_gap, -group.genders, -group.groups))
        shown = listed[: numbers["options"]["show"]]
        if shown:
            cards = Cards([_card(group, samples, thumbnail) for group in shown])
            more = _more(len(listed), len(shown), "pairs.csv")
            yield Section(title, [cards], lead, folded=listed[0] in rest, count=len(listed), more=more)


def _card(group: Group, samples: Samples, thumbnail: _Thumbnails) -> Card:
    labels = [samples.label_texts(sample) for sample in group.members]
    differs = [len({label[index] for label in labels if label[index]}) > 1 for index in range(3)]
    images = []
    for sample, label in list(zip(group.members, labels, strict=True))[:_MEMBERS]:
        words = [Mark(text) if differ else text for text, differ in zip(label, differs, strict=True) if text]
        images.append(Image(thumbnail(sample), words, _name(sample, samples), "unreadable"))
    types = [name for code, name in enumerate(COPY_TYPES) if code in group.pairs["kind"]]
    alike = " and ".join({"bytes": "same bytes", "pixels": "same pixels"}.get(name, name) for name in types)
    gap = f" · {group.age_gap:g} years apart" if group.age_gap else ""
    more = f" · {len(group.members) - _MEMBERS} more copies" if len(group.members) > _MEMBERS else ""
    return Card(images, note=f"{alike} · similarity {group.pairs['similarity'].min():.2f}{gap}{more}")


def _poor(numbers: dict, samples: Samples, flagged: Sequence[Flag], thumbnail: _Thumbnails) -> Iterator[Section]:
    for name in FLAGS:
        listed = [flag for flag in flagged if flag.flag == name]
        shown = listed[: numbers["options"]["show"]]
        if shown:
            images = [
                Image(thumbnail(flag.sample, flag.image), [flag.reason], _name(flag.sample, samples), "unreadable")
                for flag in shown
            ]
            lead, more = _LEADS[name].format(**numbers["options"]), _more(len(listed), len(shown), "flagged.csv")
            yield Section(name.capitalize(), [Gallery(images)], lead, folded=True, count=len(listed), more=more)


def _labels(numbers: dict, samples: Samples) -> Section:
    known = [folder["labels"] for folder in numbers["folders"]]
    decades = sorted(
        {decade for labels in known for decade in labels["age"].get("by_decade", {})},
        key=lambda decade: int(decade.split("-")[0]),
    )
    tables = {
        "Age": {decade: [labels["age"].get("by_decade", {}).get(decade, 0) for labels in known] for decade in decades},
        "Gender": {name: [labels["gender"][name] for labels in known] for name in GENDERS},
        "Group": {name: [labels["group"].get(name, 0) for labels in known] for name in samples.groups},
    }
    bars = Tables([_bars(title, rows, samples) for title, rows in tables.items() if rows])
    return Section("Labels", [bars, Notes([_note(folder) for folder in numbers["folders"]])])


def _note(folder: dict) -> str:
    labels, whipple = folder["labels"], folder["labels"]["whipple"]
    heaping = (
        "too few exact ages for Whipple's index"
        if whipple is None
        else f"Whipple's index {whipple:g} (100: ages of 23 to 62 end in 0 or 5 no more often than they should)"
    )
    return (
        f"{folder['folder']}: age known for {labels['age']['known']:,} of {folder['samples']:,} "
        f"({labels['age']['ranges']:,} as a range), gender for {sum(labels['gender'].values()):,}, group for "
        f"{sum(labels['group'].values()):,}; {folder['rejected_by_index']:,} samples rejected by the index; {heaping}"
    )


def _bars(title: str, rows: dict[str, list[int]], samples: Samples) -> Table:
    """A table with bars in its cells, with one scale for each folder's shares."""
    sizes = [max(len(index), 1) for index in samples.indexes]
    longest = max(count / size for counts in rows.values() for count, size in zip(counts, sizes, strict=True)) or 1
    cells: list[list[str | Cell]] = [
        [name, *(Cell(f"{count:,}", bar=count / size / longest) for count, size in zip(counts, sizes, strict=True))]
        for name, counts in rows.items()
    ]
    return Table(["", *samples.short_names], cells, title)


def _method(numbers: dict) -> Section:
    options = numbers["options"]
    notes = (
        "Same bytes, same pixels: equal digests of the file and of the decoded image.",
        f"Near, mirrored: perceptual hashes at most {options['distance']} of 64 bits apart, thumbnails alike, and a "
        f"correlation of at least {options['similarity']:g} between the fine patterns once one image, mirrored or not, "
        "is laid over the other. It finds re-encoded, resized, re-cropped, recoloured and watermarked copies, but none "
        "that are turned by more than a few degrees or cut much tighter.",
        "Faces are compared with faces, bodies with bodies. Copies of copies are one set.",
    )
    return Section("How it was measured", [Notes(notes)], folded=True)


def _more(total: int, shown: int, file: str) -> str:
    return f"{total - shown:,} more in {file}" if total > shown else ""


def _name(sample: int, samples: Samples) -> str:
    return f"{samples.short_names[samples.folder[sample]]}/{samples.key(sample)}"


def _percent(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""
