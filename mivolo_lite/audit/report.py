"""The audit as one page: no network, no script, light and dark, for phones and desks."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import simplejpeg

from mivolo_lite.audit.duplicates import COPY_TYPES
from mivolo_lite.audit.findings import FLAGS, Flag, Group
from mivolo_lite.audit.samples import IMAGES, Samples
from mivolo_lite.files import write_text
from mivolo_lite.images.jpeg import BrokenJpeg, decode
from mivolo_lite.images.letterbox import fitted, resize
from mivolo_lite.labels import GENDERS
from mivolo_lite.shards.storage import ShardFiles

_SIDE = 144
_QUALITY = 82
_MEMBERS = 8
"""Most copies of one image that are shown."""

_LEADS = {
    "unreadable": "Bytes that are no whole JPEG. They count as absent in training; an evaluation stops at them.",
    "blank": "One colour and nothing else.",
    "tiny": "A shorter side below {min_side} px.",
    "blurred": "A blur above {max_blur:g} (Crete et al., 2007), the most blurred first. Poor, not wrong: they stay.",
}


def write_report(path: Path, numbers: dict, samples: Samples, groups: Sequence[Group], flagged: Sequence[Flag]) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        numbers: what ``audit.json`` holds.
        samples: the data.
        groups: samples that are copies of each other.
        flagged: poor images.
    """
    images = _Thumbnails(samples)
    style = (files("mivolo_lite.audit") / "report.css").read_text()
    body = "".join(
        [
            _head(numbers, samples),
            _overlap(numbers, samples),
            *_copies(numbers, samples, groups, images),
            *_poor(numbers, samples, flagged, images),
            _labels(numbers, samples),
            _method(numbers),
        ]
    )
    write_text(
        path,
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>Data audit</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n'
        f"<main>{body}</main>\n</html>\n",
    )


class _Thumbnails:
    """Small images as ``<img>`` elements that carry their bytes."""

    def __init__(self, samples: Samples):
        self.samples = samples
        self.files = [ShardFiles(index) for index in samples.indexes]

    def __call__(self, number: int, name: str | None = None) -> str:
        """A sample's image; without a name the face, or the body where there is none."""
        folder, sample = self.samples.place(number)
        columns = self.samples.indexes[folder].columns
        name = name or next(name for name in IMAGES if columns[f"{name}_size"][sample] > 0)
        try:
            image = decode(self.files[folder].read(name, sample))
        except BrokenJpeg:
            return '<span class="broken" role="img" aria-label="unreadable">?</span>'
        height, width = image.shape[:2]
        if max(height, width) > _SIDE:
            image = resize(image, *fitted(width, height, _SIDE))
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), _QUALITY)
        height, width = image.shape[:2]
        source = base64.b64encode(data).decode()
        return f'<img width="{width}" height="{height}" alt="{name}" src="data:image/jpeg;base64,{source}">'


def _head(numbers: dict, samples: Samples) -> str:
    groups, flagged = numbers["groups"], numbers["flagged"]
    tolerance, beyond = numbers["options"]["age_tolerance"], numbers["groups"]["age_differs_beyond_tolerance"]
    poor = ", ".join(f"{count} {flag}" for flag, count in flagged.items()) or "none"
    tiles = [
        (groups["samples"], f"samples with a copy, in {groups['groups']} groups"),
        (groups["age_differs"], f"groups whose ages differ, {beyond} of them by more than {tolerance:g} years"),
        (groups["gender_differs"], "groups with both genders"),
        (sum(flagged.values()), f"poor images: {poor}"),
    ]
    if len(samples.names) > 1:
        tiles.insert(1, (groups["across_folders"], "groups in more than one folder"))
    figures = "".join(f"<li><b>{count:,}</b> {escape(words)}</li>" for count, words in tiles)
    names = ", ".join(f"<code>{escape(name)}</code>" for name in samples.names)
    title = f"<header><h1>Data audit</h1><p>{len(samples):,} samples in {names}</p></header>"
    return f'{title}<ul class="tiles">{figures}</ul>'


def _overlap(numbers: dict, samples: Samples) -> str:
    if len(samples.names) < 2:
        return ""
    heads = "".join(f"<th>{escape(name)}</th>" for name in samples.short_names)
    rows = ""
    for name, index, counts in zip(samples.short_names, samples.indexes, numbers["overlap"], strict=True):
        cells = "".join(f"<td>{count:,} <small>{_percent(count, len(index))}</small></td>" for count in counts)
        rows += f"<tr><th>{escape(name)}</th><td>{len(index):,}</td>{cells}</tr>"
    return _section(
        "Shared between folders",
        "How many samples of each row have a copy in each column. A copy of a training image in a validation set is "
        "estimated from memory.",
        f'<div class="wide"><table><thead><tr><th></th><th>samples</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>",
    )


def _copies(numbers: dict, samples: Samples, groups: Sequence[Group], images: _Thumbnails) -> Iterable[str]:
    tolerance = numbers["options"]["age_tolerance"]
    contradicting = [group for group in groups if group.contradicts(tolerance)]
    rest = [group for group in groups if not group.contradicts(tolerance)]
    across = [group for group in rest if len(set(samples.folder[group.members])) > 1]
    within = [group for group in rest if len(set(samples.folder[group.members])) == 1]
    for title, lead, listed in (
        (
            "Contradicting copies",
            f"The same photograph with ages more than {tolerance:g} years apart, or with both genders, the largest "
            "difference first. Nobody can tell which label is right, so <code>--fix</code> leaves all of them out.",
            contradicting,
        ),
        ("Copies in different folders", "One copy stays: in the folder named first.", across),
        ("Copies within a folder", "One copy stays: the largest, then the sharpest.", within),
    ):
        if listed:
            listed = sorted(listed, key=lambda group: (-group.age_gap, -group.genders, -group.groups))
            shown = listed[: numbers["options"]["show"]]
            cards = "".join(_card(group, samples, images) for group in shown)
            yield _section(title, lead, f'<div class="cards">{cards}</div>', len(listed), len(shown), "pairs.csv")


def _card(group: Group, samples: Samples, images: _Thumbnails) -> str:
    labels = [samples.label_texts(number) for number in group.members]
    differs = [len({label[place] for label in labels if label[place]}) > 1 for place in range(3)]
    figures = ""
    for number, label in list(zip(group.members, labels, strict=True))[:_MEMBERS]:
        words = " ".join(
            f"<mark>{escape(text)}</mark>" if differ else f"<span>{escape(text)}</span>"
            for text, differ in zip(label, differs, strict=True)
            if text
        )
        figures += f"<figure>{images(number)}<figcaption>{words}{_where(number, samples)}</figcaption></figure>"
    more = f" · {len(group.members) - _MEMBERS} more copies" if len(group.members) > _MEMBERS else ""
    types = [kind for code, kind in enumerate(COPY_TYPES) if code in group.pairs["kind"]]
    words = " and ".join({"bytes": "same bytes", "pixels": "same pixels"}.get(kind, kind) for kind in types)
    gap = f" · {group.age_gap:g} years apart" if group.age_gap else ""
    return (
        f'<article style="--copies:{min(len(group.members), _MEMBERS)}"><div class="copies">{figures}</div>'
        f"<p>{words} · similarity {group.pairs['similarity'].min():.2f}{gap}{more}</p></article>"
    )


def _poor(numbers: dict, samples: Samples, flagged: Sequence[Flag], images: _Thumbnails) -> Iterable[str]:
    for name in FLAGS:
        listed = [flag for flag in flagged if flag.flag == name]
        if listed:
            shown = listed[: numbers["options"]["show"]]
            figures = "".join(
                f"<figure>{images(flag.number, flag.image)}<figcaption>{escape(flag.reason)}"
                f"{_where(flag.number, samples)}</figcaption></figure>"
                for flag in shown
            )
            lead = _LEADS[name].format(**numbers["options"])
            content = f'<div class="gallery">{figures}</div>'
            yield _section(name.capitalize(), lead, content, len(listed), len(shown), "flagged.csv")


def _labels(numbers: dict, samples: Samples) -> str:
    folders = numbers["folders"]
    known = [one["labels"] for one in folders]
    decades = sorted(
        {decade for labels in known for decade in labels["age"].get("by_decade", {})},
        key=lambda decade: int(decade.split("-")[0]),
    )
    tables = [
        (
            "Age",
            [(decade, [labels["age"].get("by_decade", {}).get(decade, 0) for labels in known]) for decade in decades],
        ),
        ("Gender", [(name, [labels["gender"][name] for labels in known]) for name in GENDERS]),
        ("Group", [(name, [labels["group"].get(name, 0) for labels in known]) for name in samples.groups]),
    ]
    content = "".join(_bars(title, rows, samples) for title, rows in tables if rows)
    notes = [_note(one) for one in folders]
    listed = "".join(f"<li>{note}</li>" for note in notes)
    return _section("Labels", "", f'<div class="bars">{content}</div><ul class="notes">{listed}</ul>')


def _note(folder: dict) -> str:
    labels, whipple = folder["labels"], folder["labels"]["whipple"]
    heaping = (
        "too few exact ages for Whipple's index"
        if whipple is None
        else f"Whipple's index {whipple:g} (100: ages of 23 to 62 end in 0 or 5 no more often than they should)"
    )
    return (
        f"<code>{escape(folder['folder'])}</code>: age known for {labels['age']['known']:,} of {folder['samples']:,} "
        f"({labels['age']['ranges']:,} as a range), gender for {sum(labels['gender'].values()):,}, group for "
        f"{sum(labels['group'].values()):,}; {folder['rejected_by_index']:,} samples rejected by the index; {heaping}"
    )


def _bars(title: str, rows: list[tuple[str, list[int]]], samples: Samples) -> str:
    """A table whose cells are bars, each folder's shares to one scale."""
    sizes = [max(len(index), 1) for index in samples.indexes]
    shares = [[count / size for count, size in zip(counts, sizes, strict=True)] for _, counts in rows]
    longest = max((share for row in shares for share in row), default=0) or 1
    body = ""
    for (name, counts), row in zip(rows, shares, strict=True):
        cells = "".join(
            f'<td><i style="width:{100 * share / longest:.1f}%"></i><span>{count:,}</span></td>'
            for count, share in zip(counts, row, strict=True)
        )
        body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    heads = "".join(f"<th>{escape(name)}</th>" for name in samples.short_names)
    return f"<table><caption>{title}</caption><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _method(numbers: dict) -> str:
    options = numbers["options"]
    return _section(
        "How it was measured",
        "",
        "<ul class='notes'><li>Same bytes, same pixels: equal digests of the file and of the decoded image.</li>"
        f"<li>Near, mirrored: perceptual hashes at most {options['distance']} of 64 bits apart, thumbnails alike, and "
        f"a correlation of at least {options['similarity']:g} between the fine patterns once one image, mirrored or "
        "not, is laid over the other. It finds re-encoded, resized, re-cropped, recoloured and watermarked copies, "
        "none that are turned by more than a few degrees or cut much tighter.</li>"
        "<li>Faces are compared with faces, bodies with bodies. Copies of copies are one group.</li></ul>",
    )


def _section(title: str, lead: str, content: str, total: int = 0, shown: int = 0, rest: str = "") -> str:
    count = f" <small>{total:,}</small>" if total else ""
    more = f'<p class="more">{total - shown:,} more in <code>{rest}</code></p>' if total > shown else ""
    return f"<section><h2>{title}{count}</h2>{f'<p>{lead}</p>' if lead else ''}{content}{more}</section>"


def _where(number: int, samples: Samples) -> str:
    name = escape(f"{samples.short_names[samples.folder[number]]}/{samples.key(number)}")
    return f'<small title="{name}">{name}</small>'


def _percent(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""
