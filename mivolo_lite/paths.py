"""Expands ``~``, ``$VARIABLES`` and ``*`` in paths, like a shell."""

import glob
import os
import re
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.output import complain, printable

_URL = re.compile(r"[\w+.-]{2}://")  # C:// is a drive of Windows
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def is_url(address: object) -> bool:
    """Whether an address is a URL."""
    return bool(_URL.search(str(address)))


def proxy_options(address: str) -> dict[str, Any]:
    """fsspec's options for the proxies of the environment, such as ``HTTPS_PROXY``.

    Only aiohttp ignores these by default.
    """
    options = {"http": "client_kwargs", "https": "client_kwargs", "gs": "session_kwargs", "gcs": "session_kwargs"}
    option = options.get(address.partition("://")[0])
    return {option: {"trust_env": True}} if option else {}


def expand_path(path: str, option: str) -> str:
    """A path or URL with ``~``, ``$NAME`` and ``${NAME}`` expanded, which no shell does in a file or in ``--run=~/x``.

    Args:
        path: the user's text. ``pipe:`` commands are not expanded.
        option: the option, for errors.

    Raises:
        UserError: an unset variable, an unknown user, or a text that is no possible file name.
    """
    if path.startswith("pipe:"):
        return path
    if "\0" in path or not _is_unicode(path):
        raise UserError(f"{option} {path!r}: must be text in UTF-8 without NUL characters; of a photo, give its folder")
    expanded = _VARIABLE.sub(lambda match: _value(match, path, option), path)
    home = os.path.expanduser(expanded)
    if home.startswith("~") and home == expanded and not os.path.lexists(expanded):
        raise UserError(
            f"{option} {path}: there is no user {home[1:].partition('/')[0]!r}; write ./{path} for this folder"
        )
    return home


def expand_pattern(path: str) -> list[str]:
    """The files and folders that ``*``, ``**``, ``?`` and ``[]`` match, sorted; shells of Windows do not expand them.

    Folders that ``**`` cannot list are named on standard error.

    Returns:
        The path itself if it exists, is a URL, or nothing matches. The content of a matching folder is not listed
        separately.
    """
    if is_url(path) or os.path.lexists(path):
        return [path]
    _complain_of_unlisted(path)
    found = {Path(name): name for name in glob.iglob(path, recursive=True)}
    outermost = [name for match, name in found.items() if found.keys().isdisjoint(match.parents)]
    return sorted(outermost) or [path]


def _complain_of_unlisted(pattern: str) -> None:
    """Print the folders that ``**`` cannot list, which ``glob`` skips."""
    head, stars, rest = pattern.rpartition("**")
    if not stars or not rest:  # without a rest, the folder itself matches
        return
    for folder in glob.iglob(os.path.join(head + stars, ""), recursive=True):
        try:
            os.scandir(folder).close()
        except OSError as error:
            complain(
                printable(f"note: {pattern}: nothing is found in {folder}, which cannot be listed: {error.strerror}")
            )


def as_unicode(name: str) -> str:
    """A file name as valid Unicode: a byte that is no UTF-8, such as 0xE9, becomes ``\\udce9``.

    Python represents such a byte by an unpaired surrogate, which breaks JSON, and tables in other programs.
    """
    return name.encode("utf-8", "backslashreplace").decode()


def local_path(path: str, option: str) -> str:
    """``expand_path`` for a local path. Raises UserError also for a URL."""
    if is_url(path):
        raise UserError(f"{option} {path}: must be on a disk, not at a URL; copy it from or to there")
    return expand_path(path, option)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(match: re.Match, path: str, option: str) -> str:
    value = os.environ.get(match[1] or match[2])
    if value is not None:
        return value
    if is_url(path) or os.path.lexists(path):  # a literal dollar, as in a signature
        return match[0]
    raise UserError(f"{option} {path}: the variable {match[0]} is not set")
