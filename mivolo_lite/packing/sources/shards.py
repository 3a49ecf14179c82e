"""Tars of another tool, such as img2dataset: images of any format, and JSON."""

import json
import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import AGE_STD, IDENTITY
from mivolo_lite.packing.sources.cells import GenderCodes, age_of, has_value, is_person
from mivolo_lite.packing.sources.columns import unlabelled, usual_names
from mivolo_lite.packing.sources.files import IMAGE_ENDINGS
from mivolo_lite.packing.sources.source import SourceImage, usual_split
from mivolo_lite.packing.sources.table import cell_of
from mivolo_lite.packing.sources.whole_images import WholeImageSource
from mivolo_lite.shards.framing import is_cut_alike
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import LABEL_EXTENSIONS, Labels, Sample, key_of
from mivolo_lite.shards.scan import earlier_info
from mivolo_lite.shards.tars import Member, members_by_key

_ENDINGS = sorted(ending.removeprefix(".") for ending in IMAGE_ENDINGS)
_FACES, _BODIES = (tuple(f"{name}{ending}" for ending in _ENDINGS) for name in ("face.", "body."))
_SPLITS = ("train", "val", "test")
_FIRST = 100  # samples that are searched for labels
_MOST_BYTES = {"image": 1 << 28, "labels": 1 << 22}
_UNREAD = (
    "{} images are not read, such as {}: a sample has one face and one body, and a key ends at the first dot of a name"
)
_MEANINGS = ("age", "gender", "group", IDENTITY)


class ShardsSource(WholeImageSource):
    """Tars of any tool: JPEGs that need no change are stored byte for byte, other images as JPEGs.

    A sample is the members of one key: ``.face.*`` and ``.body.*``, or one image, which is the face; and ``.json`` or
    ``.cls``. Members may be in any order. macOS's attribute files are skipped, hard links are followed, and nested
    folders are read. Tars in folders named train, val and test keep these splits.

    Args:
        folder: the tars.
        age: field of the JSON with the age; by default a usual name, as for the other labels.
        gender: field with the gender.
        group: field with the group.
        identity: field with the person's name or number; a person's images go into the same split.
        gender_codes: meaning of other values of the gender, such as 0=M,1=F. Without it numbers are rejected.
        options: see ``WholeImageSource``.
    """

    def __init__(
        self,
        folder: Path,
        age: str = "",
        gender: str = "",
        group: str = "",
        identity: str = "",
        gender_codes: str = "",
        **options: Any,
    ):
        super().__init__(folder, **options)
        self.names = dict(zip(_MEANINGS, (age, gender, group, identity), strict=True))
        self.gender_of = GenderCodes(gender_codes)
        self.tars = _tars(self.images)
        folders = sorted({(self.images / tar).parent for tar in self.tars})
        policies = [earlier_info(folder)[0] for folder in folders]
        if not all(is_cut_alike(policy, policies[0]) for policy in policies):
            self.preface = [
                f"warning: --in {self.images}: its folders were cropped by different rules; none is recorded"
            ]
        elif policies[0]:
            sizes = [size for size in (policies[0].get("crop_size"),) if isinstance(size, int)]
            self.crop_policy = policies[0] | {"crop_size": min([self.rules.crop_size, *sizes])}
        self.splits = tuple(sorted({_folder_split(tar) for tar in self.tars} & set(_SPLITS)))

    def items(self) -> list[str]:
        outside = [tar for tar in self.tars if self.splits and _folder_split(tar) not in self.splits]
        if outside:
            raise UserError(
                f"--in {self.images}: {', '.join(self.splits)} are folders of splits, and {outside[0]} lies in none of "
                "them; move it, or give shares, as in --split train=0.9,val=0.1, to divide all anew"
            )
        items, unread = [], []
        for tar in self.tars:
            for key, members in _members(self.images / tar).items():
                chosen = _chosen(members)
                items += [f"{tar}:{key}"] if any(chosen) else []
                unread += [f"{tar}:{member.name}" for member in _images(members) if member not in chosen]
        if not items:
            raise UserError(f"--in {self.images}: its tars hold no images and no labels")
        self.notes = [*([_UNREAD.format(len(unread), unread[0])] if unread else []), *self._unlabelled()]
        return items

    def _unlabelled(self) -> list[str]:
        """A line on fields that may be ages or genders, if the first samples have none."""
        fields: dict[str, None] = {}
        with open(self.images / self.tars[0], "rb") as file:
            for members in islice(_members(self.images / self.tars[0]).values(), _FIRST):
                with suppress(Rejected):
                    fields |= dict.fromkeys(_record(file, _chosen(members)[2]))
        names = {meaning: name for meaning, name in usual_names(fields, self.names).items() if name in fields}
        return unlabelled("field", names, [name for name in fields if name not in names.values()])

    def read(self, item: str) -> SourceImage:
        tar, key = next((tar, item[len(tar) + 1 :]) for tar in self.tars if item.startswith(f"{tar}:"))
        members = _members(self.images / tar)[key]
        with open(self.images / tar, "rb") as file:
            face, body, label = _chosen(members)
            if not (face or body):
                raise Rejected("no face or body image among its members")
            record = _record(file, label)
            data = [None if member is None else _bytes(file, member, "image") for member in (face, body)]
        labels = self._labels(record, item)
        face_jpeg, body_jpeg = (None if image is None else self.jpeg(image) for image in data)
        identity = labels.extra.get(IDENTITY)
        together = None if identity is None else str(identity).encode(errors="surrogatepass")
        split = _folder_split(tar) if self.splits else None
        identity_of_image = next(image for image in data if image is not None)
        return SourceImage(
            identity_of_image, [Sample(key_of(key), face_jpeg, body_jpeg, labels)], together, split=split
        )

    def _labels(self, record: dict[str, Any], item: str) -> Labels:
        """A sample's labels from its JSON, under the usual names or those of options."""
        names = usual_names(record, self.names)
        fields = {meaning: names[meaning] for meaning in (*_MEANINGS, AGE_STD) if meaning in names}
        age, gender, group, identity = (_tidy(record.get(fields.get(meaning, ""))) for meaning in _MEANINGS)
        # Without the labels' default names: if a chosen field is absent, no other one replaces it.
        extra = {name: value for name, value in record.items() if name not in (*fields.values(), *_MEANINGS)}
        if AGE_STD in fields:
            extra[AGE_STD] = record[fields[AGE_STD]]
        if is_person(cell_of(identity)) and not isinstance(identity, list):
            extra[IDENTITY] = identity
        gender = self._gender(cell_of(gender))
        group = str(group) if has_value(cell_of(group)) else None
        return Labels(age_of(cell_of(age)), gender, group, {"source": item} | extra)

    def _gender(self, cell: str) -> str | None:
        try:
            self.gender_of.check([cell], "its JSON")
        except UserError as reason:
            raise Rejected(str(reason)) from None
        return self.gender_of(cell)


def _tidy(value: Any) -> Any:
    """Normalised name of a person or group: ``12`` for pandas' 12.0, and text without surrounding blanks."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


def _tars(folder: Path) -> list[str]:
    """The tars below a folder by their sorted relative names. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"--in {folder}: no such folder; give the folder of the tars")
    names = sorted(
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(".tar") and not name.startswith(".")
    )
    if not names:
        raise UserError(f"--in {folder}: holds no .tar; unpack compressed ones to plain .tar")
    return names


def _folder_split(tar: str) -> str:
    """The split named by the outermost folder of a tar, such as ``val`` for ``Validation/0.tar``, or empty."""
    folder, slash, _ = tar.partition("/")
    return usual_split(folder) if slash else ""


@lru_cache(maxsize=2)
def _members(tar: Path) -> dict[str, dict[str, Member]]:
    """The members of every key of a tar. Raises UserError for a damaged one."""
    try:
        with open(tar, "rb") as file:
            return members_by_key(file)
    except tarfile.TarError as error:
        raise UserError(f"{tar}: damaged, truncated or compressed tar ({error}); write it again") from None
    except OSError as error:
        raise UserError(f"{tar}: cannot be read: {error.strerror}") from None


def _chosen(members: Mapping[str, Member]) -> list[Member | None]:
    """Face, body and labels of a sample; a single image is the face."""
    return [
        next((members[name] for name in names if name in members), None)
        for names in ((*_FACES, *_ENDINGS), _BODIES, LABEL_EXTENSIONS)
    ]


def _images(members: Mapping[str, Member]) -> list[Member]:
    return [member for name, member in members.items() if name.rpartition(".")[2] in _ENDINGS]


def _record(file: Any, member: Member | None) -> dict[str, Any]:
    """The JSON object with a sample's labels; the number of a ``.cls`` is the age."""
    if member is None:
        return {}
    data = _bytes(file, member, "labels")
    try:
        text = data.decode()
        record = json.loads(text) if member.name.lower().endswith("json") else {"age": text.strip()}
        json.dumps(record, ensure_ascii=False).encode()  # a lone surrogate is no Unicode text
    except (ValueError, RecursionError):
        raise Rejected("its labels are not JSON in UTF-8") from None
    if not isinstance(record, dict):
        raise Rejected("its .json is not an object")
    return record


def _bytes(file: Any, member: Member, kind: str) -> bytes:
    if member.fault:
        raise Rejected(f"{member.name} {member.fault}")
    if member.size > _MOST_BYTES[kind]:
        raise Rejected(f"{member.name} has {member.size} bytes, over {_MOST_BYTES[kind]}")
    return member.read(file)
