"""The image files in a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.images.kind import HEAD, is_image

# Also formats that cannot be read, so that such files are rejected with a reason instead of skipped.
IMAGE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .png .apng .webp .bmp .dib .tif .tiff .gif .avif .avifs .heic .heics .heif .heifs .hif "
    ".jxl .jp2 .j2k .jpx .jpf .jxr .ppm .pgm .pbm .pnm .tga .ico .svg .psd .exr .hdr "
    ".cr2 .cr3 .nef .arw .dng .raf .orf .rw2".split()
)


def why_unlisted(error: OSError) -> str:
    """The reason why a folder cannot be listed."""
    return f"cannot be listed: {error.strerror}"


def _raise_unlisted(error: OSError) -> None:
    raise UserError(f"{error.filename}: {why_unlisted(error)}")


def image_files(folder: Path) -> list[str]:
    """The sorted relative names of all files below a folder that look like images.

    macOS's attribute files, ``._NAME``, are skipped, as in tars.

    Raises:
        UserError: a folder cannot be listed.
    """
    return sorted(path.relative_to(folder).as_posix() for path in files_below(folder) if looks_like_image(path))


def files_below(folder: Path, unlisted: Callable[[OSError], None] = _raise_unlisted) -> Iterator[Path]:
    """Every file below a folder. Links to files and folders are followed, but each folder is visited once.

    Args:
        folder: where to begin.
        unlisted: called for each folder that cannot be listed; the default raises UserError.
    """
    visited: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:  # links come last, so that a folder has its own name if possible
        linked = []
        for top in pending:
            for parent, folders, files in os.walk(top, onerror=unlisted):
                status = os.stat(parent)
                if (status.st_dev, status.st_ino) in visited:
                    folders.clear()
                    continue
                visited.add((status.st_dev, status.st_ino))
                folders.sort()
                linked += [Path(parent, name) for name in folders if os.path.islink(os.path.join(parent, name))]
                yield from (Path(parent, name) for name in files)
        pending = linked


def looks_like_image(path: Path) -> bool:
    """Whether a file looks like an image, by its ending or, if that is unknown, by its first bytes."""
    if path.name.startswith("._"):
        return False
    if path.suffix.lower() in IMAGE_ENDINGS:
        return True
    try:
        if not path.is_file():  # reading a pipe would block
            return False
        with open(path, "rb") as file:
            return is_image(file.read(HEAD))
    except OSError:
        return False
