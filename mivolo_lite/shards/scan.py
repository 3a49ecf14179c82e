"""Building the index of a folder of shards by one scan of its tars, which any tool may have written."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

import numpy as np
from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.files import explain_write_errors
from mivolo_lite.images.jpeg import BrokenJpeg, check
from mivolo_lite.images.kind import HEAD, is_image, kind_of
from mivolo_lite.labels import GENDERS, IDENTITY, MAX_AGE, NO_CODE
from mivolo_lite.process_pool import worker_map
from mivolo_lite.shards.columns import extra_columns, finite_or_none, label_columns
from mivolo_lite.shards.exclude import names_of
from mivolo_lite.shards.index import INFO_FILE, ShardIndex
from mivolo_lite.shards.members import IMAGES, member_columns
from mivolo_lite.shards.rejects import REJECTED_FILE, check_reject_rate, write_rejected
from mivolo_lite.shards.sample import BODY_EXTENSIONS, FACE_EXTENSIONS, LABEL_EXTENSIONS, Labels
from mivolo_lite.shards.schema import SCHEMA_VERSION
from mivolo_lite.shards.tars import Member, members_by_key
from mivolo_lite.wording import first_few

_COMPRESSED_TARS = (".tgz", ".tbz2", ".txz", *(f".tar.{end}" for end in ("gz", "bz2", "xz", "zst", "lz4", "lzma", "z")))
_COMPRESSED_HEADS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
}
_LARGEST_IMAGE, _LARGEST_LABELS = 2**28, 2**22  # bytes; a damaged header may claim all that follows
_END_OF_IMAGE = b"\xff\xd9"
_MOST_FIELDS, _LONGEST_NAME = 1000, 500


class ScannedSample(NamedTuple):
    """One sample of a tar.

    Attributes:
        key: names it.
        labels: what is known of it.
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
        rejected: what is no usable sample, with its reason.
        unread: images that belong to no sample's face or body.
        fields: names of the fields of the samples' JSON beside age, gender and group.
    """

    name: str
    size: int
    sha256: str
    samples: list[ScannedSample] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)


def index_shards(
    folder: Path | str,
    crop_policy: dict[str, Any] | None = None,
    groups: list[str] | None = None,
    max_reject_rate: float = 0.01,
    workers: int = 1,
    exclude: Collection[str] = (),
) -> ShardIndex:
    """Scan a folder's tars, and write its index, ``dataset.json`` and, where needed, ``rejected.jsonl``.

    Args:
        folder: holds uncompressed ``.tar`` shards, from any tool (``.jpg`` with ``.json`` or ``.cls``).
        crop_policy: how the crops were made, where that is known; otherwise what an earlier ``dataset.json`` says.
        groups: group names in code order; otherwise those of an earlier ``dataset.json``, then others found, sorted.
        max_reject_rate: largest share of samples that may be unusable.
        workers: processes that scan.
        exclude: samples to leave out, by their key, by the name of their image (``source`` in their JSON) or as
            ``rejected.jsonl`` names them. They change the digest.

    Raises:
        UserError: no shards, compressed or damaged shards, or too many rejects; or the index cannot be written.
    """
    folder = Path(folder)
    paths, nested = _shard_paths(folder)
    scans = _scan_all(paths, workers)
    _make_keys_unique(scans)
    excluded, excluded_rejects, unmatched = _exclude(scans, frozenset(exclude))
    rejected = [reject for scan in scans for reject in scan.rejected]
    if excluded and not any(scan.samples for scan in scans):
        raise UserError(f"{folder}: the list to leave out names all {len(excluded)} samples")
    check_reject_rate(rejected, sum(len(scan.samples) for scan in scans), max_reject_rate, folder)
    labels = [sample.labels for scan in scans for sample in scan.samples]
    earlier_policy, earlier_groups = _earlier_info(folder)
    groups = groups or _group_names(labels, earlier_groups)
    if len(groups) >= NO_CODE:
        raise UserError(f"{folder}: {len(groups)} different groups; at most {NO_CODE - 1} can be told apart")
    extra, words, mixed = extra_columns(labels)
    info = _info(scans, labels, groups, crop_policy or earlier_policy, excluded) | {"words": words}
    if nested:
        info["folders_left_out"] = nested
    if mixed:
        info["mixed"] = [_printable(name)[:_LONGEST_NAME] for name in mixed[:_MOST_FIELDS]]
    if exclude:
        info |= {"excluded": len(excluded) + excluded_rejects, "exclude_unmatched": unmatched}
    index = ShardIndex(folder, info, _columns(scans, labels, groups) | extra)
    index.save()
    with explain_write_errors(folder / REJECTED_FILE):
        (folder / REJECTED_FILE).unlink(missing_ok=True)  # an earlier scan's
        if rejected:
            write_rejected(folder / REJECTED_FILE, rejected)
    return index


def _earlier_info(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Crop policy and groups of an earlier ``dataset.json``, of any version, even damaged."""
    try:
        info = json.loads((folder / INFO_FILE).read_bytes())
        policy, groups = info.get("crop_policy"), info.get("groups")
    except (OSError, ValueError, RecursionError, AttributeError):  # AttributeError: of what is no object
        return {}, []
    named = isinstance(groups, list) and all(isinstance(group, str) for group in groups)
    return policy if isinstance(policy, dict) else {}, list(dict.fromkeys(groups)) if named else []


def _group_names(labels: list[Labels], earlier: list[str]) -> list[str]:
    """The groups in code order: those of an earlier index, then others, sorted."""
    return earlier + sorted({label.group for label in labels if label.group is not None} - set(earlier))


def _shard_paths(folder: Path) -> tuple[list[Path], list[str]]:
    """The tars of a folder, and the names of folders in it that hold tars, which are not read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of the tars")
    paths = _listed(folder)
    for path in paths:
        if path.name.lower().endswith(_COMPRESSED_TARS):
            raise UserError(f"{path}: compressed tars cannot be read at an offset; unpack it to a plain .tar")
    folders = [path for path in paths if path.is_dir()]
    nested = [path.name for path in folders if any(map(_is_tar, _listed(path)))]
    tars = [path for path in paths if _is_tar(path) and path not in folders]
    if not tars and nested:
        raise UserError(
            f"{folder}: holds no .tar shards itself, but its folders do ({first_few(nested)}): index each of them; "
            "data.train takes a list"
        )
    if not tars:
        raise UserError(f"{folder}: holds no .tar shards")
    for path in tars:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
    return tars, nested


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar"


def _listed(folder: Path) -> list[Path]:
    """The entries of a folder, without hidden files: macOS puts a ``._NAME`` of metadata beside each ``NAME``."""
    try:
        visible = (path for path in folder.iterdir() if not path.name.startswith("."))
        return sorted(visible, key=Path.as_posix)  # Windows compares paths without regard to case
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None


def _scan_all(paths: list[Path], workers: int) -> list[ShardScan]:
    bar = partial(tqdm, total=len(paths), desc="index", unit=" shards", disable=None)
    with worker_map(min(workers, len(paths))) as map_shards:
        return list(bar(map_shards(scan_shard, paths)))


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
        image, reason = f"{scan.name}:{key}"[:_LONGEST_NAME], str(error)
        scan.rejected.append({"image": _printable(image), "reason": _printable(reason)})
        return
    spans = tuple((member.offset, member.size) if member else (0, 0) for member in (face, body, label))
    crcs = tuple(map(crc32, (*images, label_bytes)))
    scan.samples.append(ScannedSample(key, _plain(labels), spans, crcs))
    scan.unread += [_printable(f"{scan.name}:{member.name}"[:_LONGEST_NAME]) for member in unread]
    scan.fields.update(_field_names(labels.extra) if len(scan.fields) < _MOST_FIELDS else ())


def _no_image(file: BinaryIO, members: Mapping[str, Member], unread: list[Member]) -> str:
    """Why a sample has neither face nor body."""
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


def _printable(text: str) -> str:
    """A name as one line of text: a tar may name a member with any bytes."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _base(member: Member) -> str:
    return member.name.rpartition("/")[2]


def _plain(labels: Labels) -> Labels:
    """Without nested values, which are no labels, and without an empty identity: an index has numbers and words."""
    plain = {name: () if isinstance(value, list | dict) else value for name, value in labels.extra.items()}
    if plain.get(IDENTITY) in ((), ""):
        del plain[IDENTITY]
    return replace(labels, extra=plain)


def _field_names(record: Mapping[str, Any]) -> list[str]:
    """Names of the fields of a JSON object, with those of objects in it, as in ``labels.age``."""
    inner = [f"{name}.{key}" for name, value in record.items() if isinstance(value, dict) for key in value]
    return [*record, *inner]


def _columns(scans: list[ShardScan], labels: list[Labels], groups: list[str]) -> dict[str, np.ndarray]:
    codes: dict[str | None, int] = {name: code for code, name in enumerate(groups)}
    samples = [sample for scan in scans for sample in scan.samples]
    keys = [sample.key.encode() for sample in samples]
    return {
        "shard": np.repeat(np.arange(len(scans), dtype=np.int32), [len(scan.samples) for scan in scans]),
        **member_columns([sample.spans for sample in samples], [sample.crcs for sample in samples]),
        **label_columns(labels),
        "group": np.array([codes.get(label.group, NO_CODE) for label in labels], dtype=np.uint8),
        "key_end": np.cumsum([len(key) for key in keys], dtype=np.int64),
        "keys": np.frombuffer(b"".join(keys), dtype=np.uint8),
    }


def _info(
    scans: list[ShardScan], labels: list[Labels], groups: list[str], crop_policy: dict[str, Any], excluded: list[str]
) -> dict[str, Any]:
    shards = [
        {"file": scan.name, "samples": len(scan.samples), "bytes": scan.size, "sha256": scan.sha256} for scan in scans
    ]
    named = json.dumps([shards, excluded] if excluded else shards)
    unread = [name for scan in scans for name in scan.unread]
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": hashlib.sha256(named.encode()).hexdigest(),
        "samples": len(labels),
        "rejected": sum(len(scan.rejected) for scan in scans),
        **({"unread": {"images": len(unread), "first": unread[0]}} if unread else {}),
        "crop_policy": crop_policy,
        "groups": groups,
        "labels": _statistics(scans, labels, groups),
        **_fields(scans, labels),
        "shards": shards,
    }


def _fields(scans: list[ShardScan], labels: list[Labels]) -> dict[str, list[str]]:
    """The fields that the samples' JSON has, where no sample has an age or none a gender: maybe under another name."""
    if any(label.age is not None for label in labels) and any(label.gender is not None for label in labels):
        return {}
    return {"fields": sorted({name[:100] for scan in scans for name in scan.fields})[:_MOST_FIELDS]}


def _statistics(scans: list[ShardScan], labels: list[Labels], groups: list[str]) -> dict[str, Any]:
    ages = np.array([sum(label.age) / 2 for label in labels if label.age is not None])
    gender_counts, group_counts = (Counter(getattr(label, name) for label in labels) for name in ("gender", "group"))
    known_identities = (finite_or_none(label.extra.get(IDENTITY)) for label in labels)
    identities = Counter(str(identity) for identity in known_identities if identity is not None)
    tens = np.arange(0, MAX_AGE + 10, 10)
    counts, _ = np.histogram(ages, bins=np.append(tens, MAX_AGE + 10))
    ranges = sum(label.age is not None and label.age[0] < label.age[1] for label in labels)
    age: dict[str, Any] = {"known": len(ages), "ranges": ranges}
    if len(ages):
        age |= {"min": ages.min(), "max": ages.max(), "mean": round(float(ages.mean()), 4)}
        age["by_decade"] = {f"{lo}-{lo + 9}": int(n) for lo, n in zip(tens, counts, strict=True) if n}
    return {
        **{
            name: sum(sample.spans[member][1] > 0 for scan in scans for sample in scan.samples)
            for member, name in enumerate(IMAGES)
        },
        "age": age,
        "gender": {name: gender_counts[name] for name in GENDERS},
        "group": {name: group_counts[name] for name in groups},
        "identity": {"known": sum(identities.values()), "people": len(identities)},
    }


def _make_keys_unique(scans: list[ShardScan]) -> None:
    """Make keys unique: where two tars share one, every key is prefixed with its tar's name."""
    keys = [sample.key for scan in scans for sample in scan.samples]
    if len(set(keys)) == len(keys):
        return
    for scan in scans:
        stem = Path(scan.name).stem
        scan.samples = [sample._replace(key=f"{stem}/{sample.key}") for sample in scan.samples]


def _exclude(scans: list[ShardScan], exclude: Collection[str]) -> tuple[list[str], int, list[str]]:
    """Leave out what is named. Returns the keys of the samples, how many rejects were named, and names of nothing."""
    excluded: list[str] = []
    rejects, unmatched = 0, set(exclude)
    for scan in scans if exclude else ():
        named = [names_of(sample.key, sample.labels) for sample in scan.samples]
        included = [sample for sample, keys in zip(scan.samples, named, strict=True) if keys.isdisjoint(exclude)]
        excluded += {sample.key for sample in scan.samples} - {sample.key for sample in included}
        names = [{name := reject["image"], name.removeprefix(f"{scan.name}:")} for reject in scan.rejected]
        rejected = [reject for reject, keys in zip(scan.rejected, names, strict=True) if keys.isdisjoint(exclude)]
        rejects += len(scan.rejected) - len(rejected)
        unmatched -= set().union(*named, *names)
        scan.samples, scan.rejected = included, rejected
    return sorted(excluded), rejects, sorted(unmatched)
