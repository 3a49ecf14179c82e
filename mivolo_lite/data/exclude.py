"""Lists of samples to leave out of a data set: one a line, and after a tab, for people, the reason."""

from collections.abc import Iterable
from pathlib import Path

from mivolo_lite.errors import UserError


def write_exclusions(path: Path, exclusions: Iterable[tuple[str, str]]) -> None:
    """Write (key, reason) as a list that ``read_exclusions`` takes. Raises UserError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key}\t{reason}\n" for key, reason in exclusions))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def read_exclusions(path: Path | str) -> frozenset[str]:
    """The names in a list. Raises UserError where it cannot be read."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise UserError(
            f"--exclude {path}: {error.strerror}; give a list such as `mivolo-lite audit --fix` writes"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"--exclude {path}: not text in UTF-8; give one key or picture name a line") from None
    return frozenset(name for line in lines if (name := line.partition("\t")[0].strip()))
