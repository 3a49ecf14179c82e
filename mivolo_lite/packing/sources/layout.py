"""Finds the files of a published layout, and reads its lists."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mivolo_lite.errors import UserError


def first_there(root: Path, names: Sequence[str], what: str) -> Path:
    """The first of the names that is in a folder. Raises UserError if none is."""
    path = first_or_none(root, names)
    if path is None:
        raise UserError(f"--images {root}: has no {what}; looked for {', '.join(names)}")
    return path


def first_or_none(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is in a folder, or None."""
    if not root.is_dir():
        raise UserError(f"--images {root}: no such folder; give the folder that the data set was unpacked to")
    return next((root / name for name in names if (root / name).exists()), None)


def words(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of each line that is not empty, split at blanks, tabs or commas. Raises UserError for no
    text."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line_words := line.replace(",", " ").split():
                    yield number, line_words
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text in UTF-8; unpack the data set again") from None


def pairs(path: Path) -> dict[str, str]:
    """The second word of each line by the first, as in lists of identities and partitions."""
    return {line[0]: line[1] for _, line in words(path) if len(line) > 1}
