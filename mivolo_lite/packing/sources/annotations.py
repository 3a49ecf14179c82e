"""Photos with MiVOLO's annotation CSV: several people a photo, each with labels, a face box and a body box."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.crops import Box, CropRules
from mivolo_lite.packing.decode import Photo, check_limit
from mivolo_lite.packing.sources.cells import (
    BODY_COLUMNS,
    FACE_COLUMNS,
    GenderCodes,
    age_of,
    box_of,
    is_absent,
    is_unknown,
    other_labels,
)
from mivolo_lite.packing.sources.cutting import cut_person, read_or_reject
from mivolo_lite.packing.sources.rows import Boxes, Person, people_in
from mivolo_lite.packing.sources.source import Source, SourceImage
from mivolo_lite.packing.sources.table import Line, read_csv
from mivolo_lite.packing.sources.together import kept_together
from mivolo_lite.shards.sample import Labels, Sample, key_of

_COLUMNS = ("img_name", "age", "gender", *FACE_COLUMNS)
_KNOWN_COLUMNS = (*_COLUMNS, *BODY_COLUMNS, "group", "source")


class AnnotationSource(Source):
    """Cuts annotated people out of photos, by the rules of MiVOLO's training reader.

    An item is a person, ``photo#line of the CSV``, so that every person that cannot be used is listed with the
    reason. People without age and gender are no samples, but they are blanked out of the others' bodies. Rows of a
    photo with nearly the same box are one person. Where the column ``identity`` says who it is, all photos of a
    person come into the same split.

    Args:
        images: folder that the CSV's ``img_name`` is relative to.
        csv: ``img_name,age,gender,face_x0,face_y0,face_x1,face_y1[,person_x0,person_y0,person_x1,person_y1]``: corners
            in pixels of the upright photo; age a number, ``25;32``, ``25-32``, ``(25, 32)`` or ``70+``; gender M or
            F, male or female; -1 for whatever is absent. What other columns say, numbers or words, goes into the
            samples' JSON, where tasks find it.
        gender_codes: what other cells of the column gender mean, such as 0=M,1=F. Without it numbers are refused.
        crop_size: largest side in pixels that a crop is stored with.
        body_from_face: guess a body box for people who have only a face: three faces wide, from half a face above to
            four faces below it.
        blank_small: also blank out other people's bodies of less than 100 pixels and faces of less than 5, which
            MiVOLO leaves in.
        max_megapixels: larger photos are rejected before they are decoded.
    """

    def __init__(
        self,
        images: Path,
        csv: Path,
        gender_codes: str = "",
        crop_size: int = 448,
        body_from_face: bool = False,
        blank_small: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
    ):
        check_limit(max_megapixels)
        self.images = Path(images)
        self.gender_of = GenderCodes(gender_codes)
        self.rules = CropRules(crop_size=crop_size, blank_small=blank_small)
        self.body_from_face = body_from_face
        self.max_megapixels = max_megapixels
        self.crop_policy = self.rules.policy() | {"body_from_face": body_from_face}
        lines = read_csv(Path(csv), _COLUMNS)
        self.gender_of.check((line.cells["gender"] for line in lines), f"--csv {csv}")
        self.people = self._people(lines)
        self.together = kept_together(_identities(lines))
        self.notes = _notes(self.people)
        check_folder(self.images)
        if not self.items():
            raise UserError(f"--csv {csv}: nobody in it has an age or a gender; label the people to learn from")

    def _people(self, lines: list[Line]) -> dict[str, dict[int, Person]]:
        """The people of each photo by the line of their labels."""
        rows: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            rows[line.cells["img_name"]].append(line)
        return {
            name: {person.number: person for person in people_in(photo_lines, self._is_labelled)}
            for name, photo_lines in rows.items()
        }

    def _is_labelled(self, cells: Mapping[str, str]) -> bool:
        return not is_unknown(cells["age"]) or self.gender_of.knows(cells["gender"])

    def items(self) -> list[str]:
        return [
            f"{name}#{line}"
            for name in sorted(self.people)
            for line, person in sorted(self.people[name].items())
            if person.labelled
        ]

    def read(self, item: str) -> SourceImage:
        name, _, line = item.rpartition("#")
        person = self.people[name][int(line)]
        labels = self._labels(name, person.cells)
        face, body = box_of(person.cells, FACE_COLUMNS), box_of(person.cells, BODY_COLUMNS)
        if body is None and face is not None and self.body_from_face:
            body = body_around(face)
        other_boxes = [Boxes.of(neighbour.cells) for neighbour in self.people[name].values() if neighbour is not person]
        photo = _read_cached(self.images / name, self.max_megapixels)
        crops = cut_person(photo.image, face, body, other_boxes, self.rules)
        sample = Sample(key_of(str(Path(name).with_suffix(""))), crops.face, crops.body, labels)
        together = self.together.get(name)
        return SourceImage(photo.data, [sample], together and together.encode(), crops.missing)

    def _labels(self, name: str, cells: Mapping[str, str]) -> Labels:
        """A person's labels. Raises Rejected where they are invalid."""
        group = cells.get("group", "")
        extra = {"source": name} | other_labels(cells, _KNOWN_COLUMNS)
        return Labels(age_of(cells["age"]), self.gender_of(cells["gender"]), None if is_absent(group) else group, extra)


def check_folder(images: Path) -> None:
    """Raises UserError where the photos' folder does not exist."""
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder; give the folder that the CSV's names are relative to")


def body_around(face: Box) -> Box:
    """A body box guessed from a face box: three faces wide, from half a face above to four faces below it.

    For somebody upright and facing the camera that is head, arms and hips; it is clipped to the photo on cutting.
    """
    x0, y0, x1, y1 = map(int, face)
    width, height = x1 - x0, y1 - y0
    return x0 - width, y0 - height // 2, x1 + width, y1 + 4 * height


def _identities(lines: list[Line]) -> list[tuple[str, str]]:
    """(photo, person) of the lines that say who it is."""
    identities = ((line.cells["img_name"], line.cells.get(IDENTITY, "")) for line in lines)
    return [(name, person) for name, person in identities if not is_absent(person)]


def _notes(photos: Mapping[str, Mapping[int, Person]]) -> list[str]:
    """Notes on rows that are no samples, counted."""
    people = [(name, person) for name, by_line in photos.items() for person in by_line.values()]
    notes = []
    if unlabelled := sum(not person.labelled for _, person in people):
        notes.append(f"{unlabelled} people without age and gender: no samples, but blanked out of others' bodies")
    if again := sum(len(person.again) for _, person in people):
        notes.append(f"{again} rows of people who have another row with nearly the same box: taken as one person")
    differing = [(column, name, person.number, line) for name, person in people for column, line in _differing(person)]
    for column, count in Counter(column for column, *_ in differing).items():
        _, name, first_line, line = next(example for example in differing if example[0] == column)
        notes.append(
            f"{count} people whose rows differ in {column}: the first labelled row's is taken (as in {name}, lines "
            f"{first_line} and {line})"
        )
    return notes


def _differing(person: Person) -> list[tuple[str, int]]:
    """(column, line) of each label that differs in another row of the person."""
    boxes = (*FACE_COLUMNS, *BODY_COLUMNS)
    lines: dict[str, int] = {}
    for line in person.again:
        for column, cell in line.cells.items():
            if column not in boxes and not is_absent(cell) and cell != person.cells[column]:
                lines.setdefault(column, line.number)
    return list(lines.items())


@lru_cache(maxsize=1)
def _read_cached(path: Path, max_megapixels: float) -> Photo:
    """The photo; its people follow each other, so that it is decoded once for all of them."""
    return read_or_reject(path, max_megapixels)
