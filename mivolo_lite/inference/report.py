"""The people of photos as a page: their faces with the estimates, from the youngest to the oldest."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from mivolo_lite.credentials import without_credentials
from mivolo_lite.files import write_text
from mivolo_lite.images.letterbox import fitted, resize
from mivolo_lite.inference.result_files import ANNOTATED, PREDICTIONS, REPORT_FILE, RESULT_FILES, TRACKS
from mivolo_lite.inference.rows import answer, describe_track
from mivolo_lite.inference.sources import Item, read_image
from mivolo_lite.packing.crops import Box, square_around
from mivolo_lite.packing.decode import UnusablePhoto
from mivolo_lite.paths import is_url
from mivolo_lite.reporting.images import data_address
from mivolo_lite.reporting.page import Gallery, Image, Mark, Notes, Page, Part, Plots, Section, Tile, Tiles
from mivolo_lite.reporting.plots import BLUE, Plot
from mivolo_lite.reporting.provenance import provenance
from mivolo_lite.shards.rejects import REJECTED_FILE

_SIDE = 144
_AROUND = 1.5  # side of the square that is shown, in longer sides of the face
_MOST = 1000
"""Most people, photos of nobody, and lines of a list on the page, which then has some megabytes."""

Row = dict[str, Any]


class _Totals(NamedTuple):
    """Totals of all people in photos.

    Attributes:
        ages: (N,) in years, NaN if there is none.
        flagged: number of people with flags.
        photos: number of photos that were read.
        nobody: number of photos in which nobody was found.
    """

    ages: np.ndarray
    flagged: int
    photos: int
    nobody: int

    @property
    def step(self) -> int:
        """The page shows every ``step``-th person."""
        return max(1, -(-len(self.ages) // _MOST))


def write_report(out: Path, items: Sequence[Item], about: Mapping[str, str]) -> None:
    """Write ``report.html`` from the tables of ``predict`` and from the photos, which are read again.

    Args:
        out: folder of the tables, and of the page.
        items: that were estimated. People of videos have no images, those of packed shards are left out.
        about: facts for the page, by their names.

    Raises:
        UserError: it cannot be written.
    """
    photos = {item.name: item for item in items if item.kind == "image"}
    totals = _totals(_rows(out, photos))
    shown = list(_with_images(list(_chosen(_rows(out, photos), totals.step)), photos, out))
    sections = [
        _summary(totals),
        *_distribution(totals.ages[~np.isnan(totals.ages)]),
        *_decades(shown),
        *_gallery("No age", [image for row, image in shown if "age" in row and row["age"] is None]),
        *_gallery("Nobody found", [image for row, image in shown if "age" not in row]),
        *_notes("Videos", map(describe_track, _lines(out / f"{TRACKS}.jsonl"))),
        *_notes("Rejected", (f"{line['image']}: {line['reason']}" for line in _lines(out / REJECTED_FILE))),
    ]
    files = [name for name in (*RESULT_FILES, ANNOTATED) if name != REPORT_FILE and (out / name).exists()]
    write_text(out / REPORT_FILE, Page("Estimated ages", [Part(sections)], {**provenance(), **about}, files).html())


def _lines(path: Path) -> Iterator[Row]:
    if path.exists():
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def _rows(out: Path, photos: Mapping[str, Item]) -> Iterator[Row]:
    """The rows of people in photos, and of photos with nobody, which have no ``age``."""
    return (row for row in _lines(out / f"{PREDICTIONS}.jsonl") if row["source"] in photos)


def _totals(rows: Iterable[Row]) -> _Totals:
    ages, flagged, photos, nobody = [], 0, 0, 0
    for _, neighbours in groupby(rows, itemgetter("source")):
        people = [row for row in neighbours if "age" in row]
        ages += [np.nan if row["age"] is None else row["age"] for row in people]
        flagged += sum(bool(row["flags"]) for row in people)
        photos, nobody = photos + 1, nobody + (not people)
    return _Totals(np.array(ages), flagged, photos, nobody)


def _chosen(rows: Iterable[Row], step: int) -> Iterator[Row]:
    """Every ``step``-th person, and the first photos with nobody."""
    people, nobody = 0, 0
    for row in rows:
        if "age" in row:
            if people % step == 0:
                yield row
            people += 1
        else:
            if nobody < _MOST:
                yield row
            nobody += 1


def _with_images(rows: Sequence[Row], photos: Mapping[str, Item], out: Path) -> Iterator[tuple[Row, Image]]:
    """Rows and their images on the page. Each photo is read once."""
    with tqdm(total=len(rows), desc=REPORT_FILE, unit="", leave=False, disable=None) as bar:
        for name, neighbours in groupby(rows, itemgetter("source")):
            try:
                photo = read_image(photos[name]).image
            except UnusablePhoto:  # it was removed after the estimation
                photo = None
            href, file = _address(photos[name], out), name.rpartition("/")[2]
            for row in neighbours:
                thumbnail = "" if photo is None else _thumbnail(photo, row.get("face") or row.get("body"))
                yield row, Image(thumbnail, _caption(row), file, "is gone", href)
                bar.update()


def _caption(row: Row) -> list[str | Mark]:
    if "age" not in row:
        return []
    return [answer(row), *map(Mark, row["flags"])]


def _thumbnail(photo: np.ndarray, box: Box | None) -> str:
    """A ``data:`` address of the square around a box, or of the whole photo without a box or if it is outside."""
    if box is not None:
        part = square_around(photo, box, _AROUND)
        photo = part if part.size else photo
    height, width = photo.shape[:2]
    if max(height, width) > _SIDE:
        photo = resize(photo, *fitted(width, height, _SIDE))
    return data_address(photo)


def _address(item: Item, out: Path) -> str:
    """The link from the page to the photo, relative to the page's folder if both are on one disk."""
    if is_url(item.address):
        return without_credentials(item.address)
    path = os.path.abspath(item.address)
    try:
        relative = os.path.relpath(path, os.path.abspath(out))
    except ValueError:  # another drive of Windows
        return Path(path).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _summary(totals: _Totals) -> Section:
    ages = totals.ages[~np.isnan(totals.ages)]
    median = f"{np.median(ages):.0f} years" if len(ages) else "none"
    middle = f"half are from {np.percentile(ages, 25):.0f} to {np.percentile(ages, 75):.0f}" if len(ages) else ""
    tiles = [
        Tile("Photos", f"{totals.photos:,}", [f"nobody found in {totals.nobody:,}" if totals.nobody else ""]),
        Tile("People", f"{len(totals.ages):,}"),
        Tile("Median age", median, [middle]),
        Tile("To trust less", f"{totals.flagged:,}", ["people with a flag"]),
    ]
    few = f"One in {totals.step} people is shown below; {PREDICTIONS}.csv has all." if totals.step > 1 else ""
    return Section("Summary", [Tiles(tiles)], more=few)


def _distribution(ages: np.ndarray) -> Iterator[Section]:
    if len(ages):
        yield Section("Distribution", [Plots([Plot("ages", "Estimated ages", lambda ax: _histogram(ax, ages))])])


def _histogram(ax: Axes, ages: np.ndarray) -> None:
    ax.hist(ages, bins=np.arange(0, max(100, ages.max()) + 5, 5).tolist(), color=BLUE)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="age in years", ylabel="people")


def _decades(shown: Sequence[tuple[Row, Image]]) -> Iterator[Section]:
    """The people of each ten years, the youngest first."""
    with_age = sorted((one for one in shown if one[0].get("age") is not None), key=lambda one: one[0]["age"])
    for decade, people in groupby(with_age, key=lambda one: int(one[0]["age"] // 10)):
        yield from _gallery(f"{10 * decade} to {10 * decade + 9} years", [image for _, image in people])


def _gallery(title: str, images: Sequence[Image]) -> Iterator[Section]:
    if images:
        yield Section(title, [Gallery(images)], count=len(images))


def _notes(title: str, lines: Iterable[str]) -> Iterator[Section]:
    """The first lines as a list, and whether there are more."""
    listed = list(islice(lines, _MOST + 1))
    if listed:
        more = f"The first {_MOST:,}; the files have all." if len(listed) > _MOST else ""
        yield Section(title, [Notes(listed[:_MOST])], folded=True, more=more)
