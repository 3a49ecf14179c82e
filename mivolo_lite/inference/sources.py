"""The inputs of ``predict`` as a list of items: images, videos, and spans of packed shards."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError
from mivolo_lite.files import encoding_of, read_file
from mivolo_lite.packing.decode import Photo, UnusablePhoto, photo_of, read_photo
from mivolo_lite.packing.sources.files import IMAGE_ENDINGS, files_below, looks_like_image, why_unlisted
from mivolo_lite.paths import as_unicode, is_url
from mivolo_lite.shards.index import INFO_FILE, ShardIndex
from mivolo_lite.shards.remote import RemoteFolder

VIDEO_ENDINGS = frozenset(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wmv .flv .ts .mts .m2ts .3gp .ogv .y4m".split())
"""Files that are read as videos; everything else is read as an image."""

_LIST_ENDING = ".txt"
_PATIENCE = 5.0  # seconds in which a download of a photo may be retried: all others wait for it
_SAMPLES = 256  # of shards in one item
_REFUSED_BY_WINDOWS = re.compile(r'[<>:"\\|?*\x00-\x1f]')  # in a file's name, also on disks that other systems read
_STEM_BYTES = 100  # of an annotated file's name, which file systems limit in bytes


class Item(NamedTuple):
    """A unit of work.

    Attributes:
        kind: its type.
        address: the file or URL of an image or a video, the folder or URL of shards.
        samples: the numbers of the samples in shards.
        reason: why it cannot be read, if that is known before, as for a folder that cannot be listed.
    """

    kind: Literal["image", "video", "shards"]
    address: str
    samples: range = range(0)
    reason: str = ""

    @property
    def name(self) -> str:
        """The address as ``as_unicode``, without credentials; for a file, with ``/`` between folders on any system."""
        return as_unicode(without_credentials(self.address).replace(os.sep, "/"))

    def annotated_name(self, number: int, ending: str) -> str:
        """The name of the file with the item's boxes and ages; ``number`` distinguishes items of the same name."""
        stem = os.fsencode(Path(self.name.partition("?")[0]).stem)[:_STEM_BYTES].decode(errors="ignore")
        stem = _REFUSED_BY_WINDOWS.sub("_", stem)
        return f"{number:06d}-{stem}{ending}"


def find_items(sources: Sequence[str]) -> tuple[list[Item], list[str]]:
    """The items of addresses, in their order; those of folders are in the order of the names.

    Args:
        sources: files, folders (with all images and videos below), URLs that fsspec reads, folders or URLs of packed
            shards, and text files (.txt) with one of these in each line.

    Returns:
        the items, and the files of folders that are neither images nor videos.

    Raises:
        UserError: there is nothing at one of them.
    """
    entries = [entry for source in sources for entry in _found_at(source)]
    items = [entry for entry in entries if isinstance(entry, Item)]
    return items, [entry for entry in entries if isinstance(entry, str)]


def _found_at(source: str) -> Iterator[Item | str]:
    """The items, and the names of files that are neither images nor videos."""
    if is_url(source):
        yield from _shards(source) if _names_no_file(source) else [_file(source)]
    elif os.path.isdir(source):
        is_packed = os.path.isfile(os.path.join(source, INFO_FILE))
        yield from _shards(source) if is_packed else _folder(Path(source))
    elif os.path.isfile(source) and Path(source).suffix.lower() == _LIST_ENDING:
        yield from _listed(Path(source))
    elif os.path.lexists(source):
        yield _file(source)
    else:
        raise UserError(f"{source}: no such file, folder or URL; nothing is there to predict")


def _listed(path: Path) -> Iterator[Item | str]:
    """The items in the lines of a text file. A missing file is rejected when it is read."""
    data = read_file(path)
    try:
        text = data.decode(encoding_of(data), "surrogateescape")
    except UnicodeDecodeError:  # only for UTF-16
        text = ""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not lines or "\0" in text:
        raise UserError(f"{path}: give a text file with an image, a video, a folder or a URL a line")
    for line in lines:
        yield from _found_at(line) if is_url(line) or os.path.isdir(line) else [_file(line)]


def _folder(folder: Path) -> list[Item | str]:
    errors: list[OSError] = []
    files = sorted(files_below(folder, errors.append), key=Path.as_posix)
    entries = [_file(str(path)) if is_video(path.name) or looks_like_image(path) else str(path) for path in files]
    errors.sort(key=lambda error: error.filename)
    unlisted = [Item("image", error.filename, reason=why_unlisted(error)) for error in errors]
    if all(isinstance(entry, str) for entry in entries):
        if unlisted:
            raise UserError(f"{unlisted[0].name}: {unlisted[0].reason}")
        packed = [str(path.parent) for path in files if path.name == INFO_FILE]
        where = f"; packed shards are in {' and '.join(packed[:5])}: give these" if packed else ", and no packed shards"
        raise UserError(f"{folder}: holds no image and no video{where}")
    return entries + unlisted


def _file(address: str) -> Item:
    return Item("video" if is_video(address) else "image", address)


def is_video(name: str) -> bool:
    """Whether a file's name or URL has the ending of a video."""
    return Path(name.partition("?")[0] if is_url(name) else name).suffix.lower() in VIDEO_ENDINGS


def _names_no_file(url: str) -> bool:
    ending = Path(url.partition("?")[0]).suffix.lower()
    return ending not in IMAGE_ENDINGS | VIDEO_ENDINGS


def _shards(address: str) -> list[Item]:
    count = len(ShardIndex.load(address))
    return [Item("shards", address, range(start, min(start + _SAMPLES, count))) for start in range(0, count, _SAMPLES)]


def read_image(item: Item) -> Photo:
    """The photo of an item. Raises UnusablePhoto with the reason if it cannot be used."""
    if item.reason:
        raise UnusablePhoto(item.reason)
    if not is_url(item.address):
        return read_photo(Path(item.address))
    path, mark, query = item.address.partition("?")
    folder, _, name = path.rpartition("/")
    try:
        return photo_of(RemoteFolder(folder + mark + query, _PATIENCE, advice="").read(name))
    except UserError as error:
        raise UnusablePhoto(str(error).removeprefix(f"{without_credentials(path)}: ")) from None
