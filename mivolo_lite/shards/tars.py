"""The members of a tar by sample, robust against wrong headers.

``tarfile`` trusts headers: it allocates the terabytes that one claims, and loops on a negative size. Here it reads
headers only, of bounded length, and each must be behind the one before and within the file.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from posixpath import normpath
from typing import BinaryIO

from mivolo_lite.system import pread

_LONGEST_HEADER = 2**20  # bytes of a name or of PAX records; Linux has paths of 4096
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG_TYPES = (*_PAX_TYPES, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_RECORD_LENGTH = re.compile(rb"(\d{1,7}) ")
_CHUNK = 2**20


@dataclass(frozen=True)
class Member:
    """A file in a tar.

    Attributes:
        name: its path in the tar.
        offset: of its first byte, in the tar.
        size: in bytes.
        fault: why its bytes are not there, to follow its name in a sentence; None if they are.
    """

    name: str
    offset: int
    size: int
    fault: str | None = None

    def read(self, file: BinaryIO, limit: int | None = None) -> bytes:
        """Its bytes, or the first ``limit`` of them."""
        return pread(file.fileno(), self.size if limit is None else min(self.size, limit), self.offset)


def members_by_key(file: BinaryIO) -> dict[str, dict[str, Member]]:
    """{key: {extension: member}} of a tar, keys in the order of their first members.

    A key ends at the first dot of a name, as in WebDataset. Its members may lie anywhere in the tar: GNU tar writes
    them in the order of the folder. Names that begin with a dot are skipped, as in WebDataset: macOS writes a metadata
    file ``._NAME`` for each ``NAME``.

    Raises:
        tarfile.TarError: no tar, or a damaged, truncated or concatenated one.
        OSError: it cannot be read.
    """
    by_key: dict[str, dict[str, Member]] = {}
    for member in _members(file):
        folder, slash, base = member.name.rpartition("/")
        if base.startswith("."):
            continue
        stem, _, extension = base.partition(".")
        members, extension = by_key.setdefault(folder + slash + stem, {}), extension.lower()
        if extension in members:
            member = replace(member, fault="occurs more than once in the tar; keep the one that is meant")
        members[extension] = member
    return by_key


def _members(file: BinaryIO) -> Iterator[Member]:
    """Files and links in the order of the tar; a hard link is resolved to the member with its bytes."""
    targets: dict[str, Member] = {}
    for header in _headers(file):
        if header.islnk():
            member = _target(header, targets)
        elif header.issym():
            member = Member(header.name, 0, 0, "is a symbolic link; write the tar with --dereference")
        elif header.issparse():
            member = Member(header.name, 0, 0, "is a GNU sparse file; write the tar without --sparse")
        elif header.isfile():
            member = Member(header.name, header.offset_data, header.size)
        elif header.isdir():
            continue
        else:
            member = Member(header.name, 0, 0, "is not a file")
        targets[normpath(header.name)] = member
        yield member


def _target(link: tarfile.TarInfo, targets: dict[str, Member]) -> Member:
    target = targets.get(normpath(link.linkname))
    if target is None:
        fault = f"is a hard link to {link.linkname[:100]}, which is not before it in the tar"
        return Member(link.name, 0, 0, fault)
    return replace(target, name=link.name)


class _Header(tarfile.TarInfo):
    """A header that is read in bounded memory and time."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or self.type in _LONG_TYPES and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {self.size} bytes")
        if self.type in _PAX_TYPES:
            self._check_records(tar)
        return super()._proc_member(tar)  # type: ignore[misc]  # of tarfile, but not in its types

    def _check_records(self, tar: tarfile.TarFile) -> None:
        """Check the lengths of PAX records: tarfile takes quadratic time if one is wrong."""
        offset, start, data = 0, tar.fileobj.tell(), tar.fileobj.read(self.size)
        while offset < len(data.rstrip(b"\0")):
            length = _RECORD_LENGTH.match(data, offset)
            record = data[offset : offset + int(length[1])] if length else b""
            if not record.endswith(b"\n") or b"=" not in record:
                raise tarfile.ReadError("a PAX record lies about its length")
            offset += len(record)
        tar.fileobj.seek(start)


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    size, end = os.fstat(file.fileno()).st_size, 0
    with _as_read_errors():
        tar = tarfile.open(fileobj=file, mode="r:", tarinfo=_Header)
    while True:
        with _as_read_errors():
            header = tar.next()
        if header is None:
            break
        tar.members.clear()  # type: ignore[attr-defined]  # otherwise tarfile keeps millions of members in memory
        if not end <= header.offset < header.offset_data <= tar.offset:
            raise tarfile.ReadError("a header points backwards")
        if tar.offset > size:
            raise tarfile.ReadError("unexpected end of data")
        end = tar.offset
        yield header
    _check_end(file, tar.offset)


@contextmanager
def _as_read_errors() -> Iterator[None]:
    """Raise ReadError for what tarfile raises on invalid numbers and endless chains of headers."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        raise tarfile.ReadError("a header that cannot be meant") from None


def _check_end(file: BinaryIO, end: int) -> None:
    """Raise ReadError unless zeros follow the last member, and nothing else.

    tarfile takes a truncated or damaged header for the end, and reads only the first of tars concatenated by ``cat``.
    """
    file.seek(end)
    zeros = file.read(tarfile.BLOCKSIZE)
    if len(zeros) < tarfile.BLOCKSIZE or zeros.strip(b"\0"):
        raise tarfile.ReadError("no end of archive behind its last member")
    while trailing := file.read(_CHUNK):
        if trailing.strip(b"\0"):
            raise tarfile.ReadError(
                "more follows its end of archive, as where tars were concatenated by cat: keep them apart"
            )
