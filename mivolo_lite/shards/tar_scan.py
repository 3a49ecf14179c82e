"""Scans one tar for its samples, their labels, and unusable members."""

import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import BrokenJpeg, check
from mivolo_lite.images.kind import HEAD, is_image, kind_of
from mivolo_lite.labels import IDENTITY
from mivolo_lite.shards.sample import BODY_EXTENSIONS, FACE_EXTENSIONS, LABEL_EXTENSIONS, Labels
from mivolo_lite.shards.tars import Member, members_by_key
from mivolo_lite.wording import first_few

_COMPRESSED_HEADS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
}
MOST_FIELDS, LONGEST_NAME = 1000, 500
"""Limits on the number and length of field names, so that no file makes an index grow without bound."""
_LARGEST_IMAGE, _LARGEST_LABELS = 2**28, 2**22  # bytes; a damaged header may claim the rest of the tar
_END_OF_IMAGE = b"\xff\xd9"


class ScannedSample(NamedTuple):
    """One sample of a tar.

    Attributes:
        key: names it.
        labels: of the person.
        spans: offset and size of each of its ``Members``, size 0 without.
        crcs: of the same.
    """

    key: str
    labels: Labels
    spans: tuple[tuple[int, int], ...]
    crcs: tuple[int, ...]


@dataclass
class ShardScan:
    """The content of one tar.

    Attributes:
        name, size, sha256: of its file.
        samples: in the order of the tar.
        rejected: unusable samples with the reasons.
        unread: images that are no face or body of a sample.
        fields: names of the fields of the samples' JSON beside age, gender and group.
    """

    name: str
    size: int
    sha256: str
    samples: list[ScannedSample] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)


def scan_shard(path: Path) -> ShardScan:
    """Offsets and labels of every sample of one tar. Raises UserError for a compressed, damaged or unreadable one."""
    try:
        with open(path, "rb") as file:
            _check_uncompressed(path, file.read(6))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            scan = ShardScan(path.name, file.tell(), digest)
            file.seek(0)
            for key, members in members_by_key(file).items():
                _scan_members(scan, file, key, members)
    except tarfile.TarError as error:
        raise UserError(f"{path}: damaged or truncated tar ({error}); write it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return scan


def _check_uncompressed(path: Path, head: bytes) -> None:
    for magic, name in _COMPRESSED_HEADS.items():
        if head.startswith(magic):
            raise UserError(f"{path}: compressed with {name}, cannot be read at an offset; unpack it to a plain .tar")


def _scan_members(scan: ShardScan, file: BinaryIO, key: str, members: Mapping[str, Member]) -> None:
    """Add the members of one key: a sample, a reject with its reason, or neither, such as a LICENSE."""
    face, body, label = (
        next((members[name] for name in names if name in members), None)
        for names in (FACE_EXTENSIONS, BODY_EXTENSIONS, LABEL_EXTENSIONS)
    )
    unused = [member for member in members.values() if all(member is not used for used in (face, body, label))]
    unread = [member for member in unused if member.fault is None and is_image(member.read(file, HEAD))]
    if not (face or body or label or unread):
        return
    try:
        key.encode()  # UnicodeEncodeError is a ValueError
        if not (face or body):
            raise ValueError(_no_image(file, members, unread))
        images = [_image(file, member) if member else b"" for member in (face, body)]
        label_bytes = _bytes(file, label, _LARGEST_LABELS) if label else b""
        labels = _labels(label, label_bytes)
    except ValueError as error:
        image, reason = f"{scan.name}:{key}"[:LONGEST_NAME], str(error)
        scan.rejected.append({"image": printable(image), "reason": printable(reason)})
        return
    spans = tuple((member.offset, member.size) if member else (0, 0) for member in (face, body, label))
    crcs = tuple(map(crc32, (*images, label_bytes)))
    scan.samples.append(ScannedSample(key, _plain(labels), spans, crcs))
    scan.unread += [printable(f"{scan.name}:{member.name}"[:LONGEST_NAME]) for member in unread]
    scan.fields.update(_field_names(labels.extra) if len(scan.fields) < MOST_FIELDS else ())


def _no_image(file: BinaryIO, members: Mapping[str, Member], unread: list[Member]) -> str:
    """The reason why a sample has neither face nor body."""
    if not unread:
        return f"no face or body image among its members ({first_few(sorted(members))})"
    kind = kind_of(unread[0].read(file, HEAD))
    if kind == "a JPEG":
        names = first_few([_base(member) for member in unread])
        return f"no face or body image: a key ends at the first dot of a name ({names}); rename them without other dots"
    return (
        f"no face or body image: {_base(unread[0])} is {kind}; shards hold JPEGs alone: `mivolo-lite pack shards` "
        "converts them"
    )


def _image(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a face or body. Raises ValueError where they are no JPEG that can be decoded."""
    data = _bytes(file, member, _LARGEST_IMAGE)
    try:
        check(data)
    except BrokenJpeg as error:
        raise ValueError(f"{_base(member)}: {error}") from None
    if _END_OF_IMAGE not in data:
        raise ValueError(f"{_base(member)}: a truncated JPEG, without an end")
    return data


def _labels(member: Member | None, content: bytes) -> Labels:
    if member is None:
        return Labels.from_members({})
    extension = member.name.rpartition(".")[2].lower()
    return Labels.from_members({extension: content})


def _bytes(file: BinaryIO, member: Member, limit: int) -> bytes:
    if member.fault:
        raise ValueError(f"{_base(member)} {member.fault}")
    if member.size > limit:
        raise ValueError(f"{_base(member)} has {member.size} bytes, over {limit}")
    return member.read(file)


def printable(text: str) -> str:
    """A name as one line of text: a tar may name a member with any bytes."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _base(member: Member) -> str:
    return member.name.rpartition("/")[2]


def _plain(labels: Labels) -> Labels:
    """The fields without nested values, which an index cannot hold, and without an empty identity."""
    plain = {name: () if isinstance(value, list | dict) else value for name, value in labels.extra.items()}
    if plain.get(IDENTITY) in ((), ""):
        del plain[IDENTITY]
    return replace(labels, extra=plain)


def _field_names(record: Mapping[str, Any]) -> list[str]:
    """Names of the fields of a JSON object, with those of objects in it, as in ``labels.age``."""
    inner = [f"{name}.{key}" for name, value in record.items() if isinstance(value, dict) for key in value]
    return [*record, *inner]
