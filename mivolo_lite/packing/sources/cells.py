"""Parsing the cells of a CSV: ages, genders, boxes, and other labels."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from mivolo_lite.errors import UserError
from mivolo_lite.labels import AGE_STD, GENDERS, IDENTITY, MAX_AGE, MIN_AGE, MISSING, OLDEST
from mivolo_lite.packing.crops import Box
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import parse_age, parse_gender

IMAGE, SPLIT = "img_name", "split"
FACE_COLUMNS = ("face_x0", "face_y0", "face_x1", "face_y1")
BODY_COLUMNS = ("person_x0", "person_y0", "person_x1", "person_y1")
LANDMARK_COLUMNS = tuple(
    f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
"""The five landmarks in pixels, left as seen in the image: CelebA's names and order."""
CORNERS = "face_corners"
"""The column of a face's rotated box: the x and y of its four corners, clockwise from the upper left, in one cell."""

_ABSENT = ("", "-1", "-1.0")
_UNKNOWN = ("u", "unknown", "none", *MISSING)
_RANGE = re.compile(r"[(\[]?\s*(\d+(?:\.\d+)?)\s*(?:[;,–-]|to)\s*(\d+(?:\.\d+)?)\s*[)\]]?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{2,4}")
_COMMA = re.compile(r"\d+,\d+")
_OPEN = re.compile(r"(?:(?:more than|over)\s*|>=?\s*)(\d+)|(\d+)\s*\+", re.IGNORECASE)
_UNDER = re.compile(r"(?:(?:less than|under|up to)\s*|<=?\s*)(\d+)", re.IGNORECASE)
_YEARS = re.compile(r"\s*(?:years?(?: old)?|yrs?|y)\.?$", re.IGNORECASE)


def is_absent(cell: str) -> bool:
    """Whether a cell is empty or -1."""
    return cell in _ABSENT


def has_value(cell: str) -> bool:
    """Whether a cell of another label is not empty, -1, ``NA``, ``nan``, ``null`` or ``inf``; it may say unknown."""
    return not is_absent(cell) and cell.lower() not in MISSING and not _is_infinite(cell)


def is_person(cell: str) -> bool:
    """Whether a cell names somebody: all people called ``unknown`` or ``None`` would be one."""
    return has_value(cell) and cell.lower() not in ("unknown", "none")


def is_unknown(cell: str) -> bool:
    """Whether a cell of an age or a gender is empty, -1 or a word for unknown."""
    return cell in _ABSENT or cell.lower() in _UNKNOWN


def age_of(cell: str, offset: int = 0) -> tuple[float, float] | None:
    """An age as a closed range in years: ``31``, ``25;32``, ``25-32``, ``(25, 32)``, ``70+``, ``60+ years``, ``<3``.

    ``offset`` is added to it.

    Raises:
        Rejected: it is not an age.
    """
    if is_unknown(cell):
        return None
    text = _YEARS.sub("", cell)
    group, beyond, under = (form.fullmatch(text) for form in (_RANGE, _OPEN, _UNDER))
    if _COMMA.fullmatch(text):  # a list without its brackets, or a decimal comma
        point, dash = text.replace(",", "."), text.replace(",", "-")
        raise Rejected(f"age {cell!r:.50} may be {point} or a range: write {point} or {dash}")
    if _DATE.fullmatch(text):
        raise Rejected(f"age {cell!r:.50} is no age but a date: write the age in years in the photo")
    if not (group or beyond or under or _is_number(text)):
        raise Rejected(f"age {cell!r:.50} is no age: write 31, 25;32 (or 25-32, (25, 32)) or 70+")
    if group and float(group[1]) > float(group[2]):
        raise Rejected(f"age {cell!r:.50} ends before it begins")
    ends = (
        group.groups() if group else (beyond[1] or beyond[2], OLDEST) if beyond else (0, under[1]) if under else [text]
    )
    try:
        return parse_age([float(end) + offset for end in ends] * (2 // len(ends)))
    except ValueError:
        added = f" with --age_offset {offset}" if offset else ""
        raise Rejected(f"age {cell!r:.50}{added} does not lie in {MIN_AGE} to {MAX_AGE}") from None


class GenderCodes:
    """The meaning of cells of the gender column: the usual words, and codes that an option explains.

    Args:
        text: ``"0=M,1=F"``, or nothing.

    Raises:
        UserError: it is not written so, or does not name both genders.
    """

    def __init__(self, text: str):
        self.genders: dict[str, str | None] = {}
        try:
            for pair in filter(None, text.split(",")):
                code, _, word = pair.partition("=")
                self.genders[_canonical(code.strip())] = parse_gender(word.strip())
        except ValueError:
            self.genders = {"": ""}
        if self.genders and set(self.genders.values()) != set(GENDERS):
            raise UserError(f"--gender_codes {text!r}: name both genders, as in 0=M,1=F")

    def __repr__(self) -> str:  # parts of a data set are told apart by their options
        return repr(self.genders)

    def check(self, cells: Iterable[str], option: str, column: str = "gender") -> None:
        """Raise UserError where genders are numbers that ``gender_codes`` does not explain, or no word is a gender.

        Data sets contradict each other: 1 is male in IMDB-WIKI, CelebA and MORPH's CSVs and female in UTKFace; beside
        1, -1 is female in CelebA, and unknown elsewhere.
        """
        codes = {code for cell in set(cells) if _is_number(code := _canonical(cell)) and code not in self.genders}
        if codes - {"-1"}:
            examples = sorted(codes)[:5]
            first, second = examples[:2] if len(examples) > 1 else ("0", "1")
            if column.lower() == "male" or first.startswith("-"):  # which a command line takes for an option
                first, second = second, first
            raise UserError(
                f"{option}: column {column} holds numbers ({', '.join(examples)}), whose meaning differs between data "
                f"sets; write M and F, or say which is which: --gender_codes {first}=M,{second}=F or the other way "
                "round"
            )
        words = sorted(cell for cell in set(cells) if self.knows(cell))
        if len(words) > 1 and not any(map(self._reads, words)):
            first, second = words[:2]
            raise UserError(
                f"{option}: column {column} holds no gender but {', '.join(words[:5])}; write M and F, or say which is "
                f"which: --gender_codes {first}=M,{second}=F or the other way round"
            )

    def _reads(self, cell: str) -> bool:
        try:
            return self(cell) is not None
        except Rejected:
            return False

    def knows(self, cell: str) -> bool:
        """Whether a cell holds a gender."""
        return _canonical(cell) in self.genders or not is_unknown(cell)

    def __call__(self, cell: str) -> str | None:
        """The gender, None where it is unknown. Raises Rejected for anything else."""
        if not self.knows(cell):
            return None
        try:
            return self.genders.get(_canonical(cell)) or parse_gender(cell)
        except ValueError as error:
            raise Rejected(str(error)) from None


def _is_number(code: str) -> bool:
    try:
        return "_" not in code and math.isfinite(float(code))  # Python reads 4_6 as 46
    except ValueError:
        return False


def _canonical(cell: str) -> str:
    """``1`` for ``1.0`` and ``+1``; words in small letters."""
    return f"{float(cell):g}" if _is_number(cell) else cell.lower()


def box_of(cells: Mapping[str, str], columns: tuple[str, ...]) -> Box | None:
    """The box in four columns; None where all of them are -1, empty or not there.

    Raises:
        Rejected: not numbers, or shares of the image instead of pixels.
    """
    edges = [cells.get(column, "") for column in columns]
    if all(map(is_absent, edges)):
        return None
    if not all(map(_is_number, edges)):
        raise Rejected(f"{columns[0]} to {columns[-1]}: {','.join(edges)} is not a box")
    left, top, right, bottom = box = [float(edge) for edge in edges]
    if all(0 <= edge <= 1 for edge in box) and any(0 < edge < 1 for edge in box):
        raise Rejected(f"{columns[0]} to {columns[-1]}: {','.join(edges)} are shares of the image; give pixels")
    return left, top, right, bottom


def numbers_of(cells: Sequence[str], what: str) -> list[float]:
    """Numbers in cells. Raises Rejected where one is none."""
    if not all(map(_is_number, cells)):
        raise Rejected(f"{what}: {','.join(cells):.80} are not numbers")
    return list(map(float, cells))


def other_labels(cells: Mapping[str, str], known_columns: Iterable[str]) -> dict[str, str | float]:
    """The labels in all other columns by their names: numbers or words."""
    return {
        column: cell if column == IDENTITY else _number_or_word(cell)  # as numbers, 007 and 7 would be one person
        for column, cell in cells.items()
        if column not in known_columns
        and column.isidentifier()
        and (is_person(cell) if column == IDENTITY else has_value(cell))
        and not (column == AGE_STD and is_unknown(cell))  # a word among numbers would cost the index the column
    }


def has_decimal_comma(cell: str) -> bool:
    """Whether a cell is a number to people who write commas, and a word to this package."""
    return _COMMA.fullmatch(cell.lstrip("-")) is not None


def nameless_columns(columns: Iterable[str]) -> list[str]:
    """The columns that ``other_labels`` passes over, since their names cannot name a task."""
    return [column for column in columns if column and not column.isidentifier()]


def _number_or_word(cell: str) -> str | float:
    return float(cell) if _is_number(cell) else cell


def _is_infinite(cell: str) -> bool:
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False
