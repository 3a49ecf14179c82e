"""One person's crops and labels, and their layout in a shard.

A sample is ``<key>.face.jpg``, ``<key>.body.jpg`` (either may be absent, not both) and ``<key>.json``.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mivolo_lite.labels import GENDERS, MAX_AGE, MIN_AGE, MISSING

FACE_EXTENSIONS = ("face.jpg", "face.jpeg", "jpg", "jpeg")
"""Member extensions read as the face crop; the plain ones for shards that somebody else wrote."""
BODY_EXTENSIONS = ("body.jpg", "body.jpeg")

LABEL_EXTENSIONS = ("json", "cls")

_GENDER_WORDS = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F"}


@dataclass(frozen=True)
class Labels:
    """The labels of a person. None stands for unknown.

    Attributes:
        age: closed range (lo, hi) in years; both ends are equal for an exact age.
        gender: one of ``GENDERS``.
        group: ethnicity or any other group that the data set names.
        extra: anything else the sample's JSON holds.
    """

    age: tuple[float, float] | None = None
    gender: str | None = None
    group: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_members(cls, members: Mapping[str, bytes]) -> "Labels":
        """Labels from a sample's members by extension: its ``json``, or a bare age in its ``cls``.

        Raises:
            ValueError: there is neither, or it is invalid.
        """
        if "json" in members:
            return cls.from_json(_json_object(members["json"]))
        if "cls" in members:
            return cls.from_json({"age": _text(members["cls"])})
        raise ValueError("no .json or .cls with its labels")

    @classmethod
    def from_json(cls, record: dict) -> "Labels":
        """Labels from a sample's JSON object. Raises ValueError with the reason where they are invalid."""
        extra = {name: value for name, value in record.items() if name not in ("age", "gender", "group")}
        return cls(
            parse_age(record.get("age")), parse_gender(record.get("gender")), _parse_group(record.get("group")), extra
        )

    def to_json(self) -> dict:
        """The JSON object of a shard: unknown labels are left out, an exact age is one number."""
        record = dict(self.extra)
        if self.age is not None:
            lo, hi = (int(end) if float(end).is_integer() else end for end in self.age)
            record["age"] = lo if lo == hi else [lo, hi]
        if self.gender is not None:
            record["gender"] = self.gender
        if self.group is not None:
            record["group"] = self.group
        return record


@dataclass(frozen=True)
class Sample:
    """A person in a shard: JPEG bytes of the face and body crop, and the labels."""

    key: str
    face: bytes | None
    body: bytes | None
    labels: Labels

    def members(self) -> dict[str, bytes]:
        """The sample's members by extension, JSON with sorted keys so that equal samples are equal bytes."""
        images = {"face.jpg": self.face, "body.jpg": self.body}
        present = {extension: image for extension, image in images.items() if image is not None}
        return present | {"json": json.dumps(self.labels.to_json(), sort_keys=True).encode()}


def parse_age(value: Any) -> tuple[float, float] | None:
    """An age or ``[lo, hi]`` in years as a closed range; None stays None.

    Raises:
        ValueError: not a number or a pair of numbers, upside down, or outside ``MIN_AGE`` to ``MAX_AGE``.
    """
    if value is None:
        return None
    ends = value if isinstance(value, list | tuple) else (value, value)
    try:
        if any(isinstance(end, bool) or isinstance(end, str) and "_" in end for end in ends):
            raise TypeError  # true would be 1 year, and 4_6 would be 46
        lo, hi = (float(end) for end in ends)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"age {value!r:.50} is neither a number nor a pair [lo, hi]") from None
    if not MIN_AGE <= lo <= hi <= MAX_AGE:
        raise ValueError(f"age {value!r:.50} does not lie in {MIN_AGE} to {MAX_AGE}")
    return lo, hi


def parse_gender(value: Any) -> str | None:
    """``"M"``, ``"F"`` or None from the usual spellings. Raises ValueError for anything else."""
    if value is None or value in GENDERS:
        return value
    try:
        return _GENDER_WORDS[str(value).lower()]
    except KeyError:
        raise ValueError(f"gender {value!r:.50} is not one of {', '.join(GENDERS)}") from None


def _parse_group(value: Any) -> str | None:
    """A group's name, None where unknown. Raises ValueError for what is no name."""
    if isinstance(value, list | dict):
        raise ValueError("its group is neither a name nor a number")
    if value in (None, "") or value != value or str(value).lower() in MISSING:  # NaN is not equal to itself
        return None
    return str(value)


def _json_object(data: bytes) -> dict:
    """A JSON object as Unicode text. Raises ValueError for anything else."""
    try:
        record = json.loads(data, object_pairs_hook=_each_once)
        if not data.isascii() or b"\\u" in data:  # either may contain an unpaired surrogate
            json.dumps(record, ensure_ascii=False).encode()
    except _NameTwice as error:
        raise ValueError(f"its .json has {str(error)!r:.50} twice") from None
    except UnicodeEncodeError:
        raise ValueError("its .json has a lone surrogate, which is no Unicode text") from None
    except (ValueError, RecursionError):
        raise ValueError("its .json is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("its .json is not an object")
    return record


class _NameTwice(Exception):
    """A JSON object has a name twice."""


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _NameTwice(next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1))
    return record


def _text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("its .cls is not text") from None


def key_of(name: str) -> str:
    """A shard key from an image's relative path: no dot, since WebDataset ends the key at the first one."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "image"
