"""An HTML page in one file without scripts, for phones and desktops, with a dark mode.

Its content is data: sections of blocks. ``page.html`` lays them out, and escapes all text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar

from jinja2 import Environment, PackageLoader

if TYPE_CHECKING:  # matplotlib takes a second to import
    from mivolo_lite.reporting.plots import Plot

_ROOM = "mivolo_lite.reporting"


@dataclass(frozen=True)
class Tile:
    """One large number.

    Attributes:
        label: what it is.
        value: the number, as text.
        notes: lines below it.
    """

    label: str
    value: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Cell:
    """A cell of a table with more than a text.

    Attributes:
        text: what it says.
        small: a second text in small letters.
        href: link of the text.
        shade: opacity of the background, from 0 to 1.
        bar: length of the bar behind the text, as a share of the cell.
    """

    text: str
    small: str = ""
    href: str = ""
    shade: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Mark:
    """A highlighted text."""

    text: str


@dataclass(frozen=True)
class Image:
    """A small image with its caption.

    Attributes:
        source: its ``data:`` address; empty where there is nothing to show.
        caption: words, each a text or a ``Mark``.
        name: what identifies it, in small letters and cut where it is too long.
        missing: what to show in place of the image.
        href: where the image leads.
    """

    source: str
    caption: Sequence[str | Mark] = ()
    name: str = ""
    missing: str = ""
    href: str = ""


@dataclass(frozen=True)
class Card:
    """Images that belong together, with a ``title`` above and a ``note`` below."""

    images: Sequence[Image]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """The figures that are read first."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers and ``Cell``s below a ``head``, with a ``title`` above and ``notes`` below."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str | int | Cell]]
    title: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Tables:
    """Tables side by side."""

    kind: ClassVar[str] = "tables"
    tables: Sequence[Table]


@dataclass(frozen=True)
class Plots:
    """Plots side by side; ``small`` ones are many of one kind."""

    kind: ClassVar[str] = "plots"
    plots: Sequence["Plot"]
    small: bool = False


@dataclass(frozen=True)
class Gallery:
    """Images of one kind, side by side."""

    kind: ClassVar[str] = "gallery"
    images: Sequence[Image]


@dataclass(frozen=True)
class Cards:
    """Groups of images with titles."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    kind: ClassVar[str] = "notes"
    lines: Sequence[str]


Block = Tiles | Table | Tables | Plots | Gallery | Cards | Notes


@dataclass(frozen=True)
class Section:
    """Blocks below a title.

    Attributes:
        title: its heading, unique within its part.
        blocks: its content.
        lead: a sentence above them.
        folded: on a narrow screen only the title is shown until it is opened.
        count: a number behind the title.
        more: a sentence below the blocks.
    """

    title: str
    blocks: Sequence[Block]
    lead: str = ""
    folded: bool = False
    count: int | None = None
    more: str = ""


@dataclass(frozen=True)
class Part:
    """Sections, below a title of their own where the page has several parts."""

    sections: Sequence[Section]
    title: str = ""

    def anchor(self, section: Section | None = None) -> str:
        """The anchor of the part, or of one of its sections."""
        titles = (self.title, section.title if section else "")
        return "-".join(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") for title in titles if title)


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: its heading.
        parts: its content.
        facts: provenance, by the name of each fact.
        files: names of the files beside it, to link to.
    """

    title: str
    parts: Sequence[Part]
    facts: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()

    def menu(self) -> Iterator[tuple[str, str]]:
        """Anchors and texts of the links at its top: parts that have a title, sections of the others."""
        for part in self.parts:
            if part.title:
                yield part.anchor(), part.title
            else:
                yield from ((part.anchor(section), section.title) for section in part.sections)

    def html(self) -> str:
        """The file's text."""
        environment = Environment(
            loader=PackageLoader(_ROOM, "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        style = (files(_ROOM) / "page.css").read_text(encoding="utf-8")
        return environment.get_template("page.html").render(page=self, style=style)
