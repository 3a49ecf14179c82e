"""Atomic writes, with the permissions of the umask and errors of one line."""

import codecs
import errno
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import IOBase
from itertools import product
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from mivolo_lite.errors import UserError
from mivolo_lite.system import open_to_read, sync_path, try_lock

_OS_ERROR = re.compile(r"os error (\d+)\)")
_RESULTS = {
    "predictions.jsonl": "the results of predict",
    "metrics.json": "an evaluation",
    "matrix.json": "a matrix of evaluations",
    "comparison.json": "a comparison",
    "audit.json": "an audit",
    "predictions.csv": "an evaluation",
}
"""Files that identify the results of a command; other result files have the same name for several commands."""


@contextmanager
def explain_write_errors(path: Path | str, remedy: str = "choose another place, or make room") -> Iterator[None]:
    """Turn errors of writing into a UserError with the path, the reason and a remedy.

    Args:
        path: file or folder to write.
        remedy: the end of the message.

    Raises:
        UserError: the disk is full or read-only, a permission is missing, or any other error of the file system.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _error_number(error)
        if code is None:
            raise
        reason = "a file of that name is there" if code == errno.EEXIST else os.strerror(code)
        raise UserError(f"{path}: cannot be written: {reason}; {remedy}") from None


def _error_number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    match = _OS_ERROR.search(str(error))  # safetensors' errors have no number, only its text
    return int(match[1]) if match else None


def read_file(path: Path, limit: int = 1 << 30) -> bytes:
    """At most ``limit`` + 1 bytes of a regular file.

    Other files are errors: opening a named pipe would block, and ``/dev/zero`` has no end.

    Raises:
        UserError: it is a folder, a device or a pipe.
        OSError: it cannot be opened.
    """
    descriptor = open_to_read(path)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise UserError(f"{path}: {'is a directory' if stat.S_ISDIR(kind) else 'not a regular file'}")
    with open(descriptor, "rb") as file:
        return file.read(limit + 1)


def encoding_of(text: bytes) -> str:
    """UTF-16 if a text has its byte order mark, as from PowerShell and Excel; else UTF-8, with or without a mark."""
    return "utf-16" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def write_text(path: Path, text: str) -> None:
    """Write a file atomically. Raises UserError if that fails."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises UserError if that fails."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically. Raises UserError if that fails."""
    with written_aside(path) as partial:
        partial.write_bytes(data)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary file that replaces ``path`` when it is complete. On failure it is removed, and UserError raised."""
    with explain_write_errors(path), _replacing(path) as partial:
        yield partial


@contextmanager
def written_text(path: Path) -> Iterator[TextIO]:
    """``written_aside`` for a text file. Text that is no Unicode gets backslashes, which JSON reads as the same
    text."""
    with (
        written_aside(path) as partial,
        open(partial, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        _unlink_quietly(partial)
        raise


def result_folder(folder: Path, names: Collection[str], inputs: Iterable[Path] = ()) -> None:
    """Create a folder for results, and remove earlier results of the same command.

    Args:
        folder: of the results.
        names: files that the command writes.
        inputs: files that it reads.

    Raises:
        UserError: a file in it is an input or the result of another command, or it cannot be written.
    """
    require_replaceable(folder, names, inputs)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).unlink(missing_ok=True)
        require_writable(folder)


def require_replaceable(folder: Path, names: Collection[str], inputs: Iterable[Path] = ()) -> None:
    """Raise UserError if a file to write would replace an input, or the result of another command."""
    existing = [name for name in names if (folder / name).exists()]
    for name, read in product(existing, inputs):
        if read.exists() and read.samefile(folder / name):
            raise UserError(f"--out {folder}: {read} is there, and its results would replace it; give another folder")
    others = [result for name, result in _RESULTS.items() if name not in names and (folder / name).exists()]
    if existing and others:
        raise UserError(
            f"--out {folder}: holds {others[0]}, whose {existing[0]} would be replaced; give another folder"
        )


def lock_or_explain(file: IOBase, out: Path) -> None:
    """Lock an open file against other commands that write ``out``. Raises UserError if one has the lock."""
    if not try_lock(file):
        raise UserError(f"--out {out}: another command is writing it; wait for that one, or stop it")


def new_path(path: Path | str) -> Path:
    """The path of a new file or folder, whose parent is created. Raises UserError if it exists or cannot be created."""
    path = Path(path)
    if path.exists():
        raise UserError(f"{path}: already exists; remove it or choose another name")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    require_writable(path.parent)
    return path


def require_writable(folder: Path) -> None:
    """Test by a temporary file whether a folder is writable. Raises UserError if it is not."""
    with explain_write_errors(folder):
        probe = folder / ".writable.partial"
        try:
            probe.write_bytes(b"-")
        finally:
            _unlink_quietly(probe)


def save_tensors(tensors: Mapping, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors or numpy arrays as safetensors, atomically.

    safetensors itself ignores the umask and creates files with mode 0600, which others on a cluster cannot read.

    Raises:
        OSError, SafetensorError: they cannot be written; ``explain_write_errors`` explains them.
    """
    from safetensors import numpy, torch

    tensors = _unshare(tensors)
    arrays = all(type(tensor).__module__ == "numpy" for tensor in tensors.values())
    with _replacing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # of the umask or the folder's access control list
        (numpy if arrays else torch).save_file(tensors, partial, dict(metadata) if metadata else None)
        os.chmod(partial, mode)


def _unshare(tensors: Mapping) -> dict:
    """Copy tensors that share memory, which safetensors does not support."""
    memories, unshared = set(), {}
    for name, tensor in tensors.items():
        strided = str(getattr(tensor, "layout", "")) == "torch.strided"
        memory = tensor.untyped_storage().data_ptr() if strided else None
        unshared[name] = tensor.clone() if memory and memory in memories else tensor
        memories.add(memory)
    return unshared


def sync_files(folder: Path, deep: bool = True) -> None:
    """Flush a folder and its files to the disk, so that renamed files survive a crash of the machine."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        sync_path(path)


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass
