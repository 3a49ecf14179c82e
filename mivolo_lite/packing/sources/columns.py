"""Finds the columns of a table by options or by their usual names."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.labels import AGE_STD, FOLD, IDENTITY
from mivolo_lite.packing.sources.cells import (
    BODY_COLUMNS,
    FACE_COLUMNS,
    IMAGE,
    LANDMARK_COLUMNS,
    SPLIT,
    GenderCodes,
    age_of,
    has_decimal_comma,
    is_unknown,
)
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.wording import first_few

USUAL_NAMES: dict[str, Sequence[str]] = {
    IMAGE: "img_name path file image file_name filename img image_path img_path file_path filepath image_name "
    "image_file image_id photo name".split(),
    "age": "age real_age true_age age_group apparent_age apparent_age_avg".split(),
    "gender": "gender sex male".split(),
    "group": "group race ethnicity".split(),
    IDENTITY: "identity person person_id subject subject_id user_id id_num".split(),
    SPLIT: "split partition subset".split(),
    FOLD: ["fold"],
    AGE_STD: "age_std std_age apparent_age_std".split(),
}
"""Lower-case names of columns in published files, the most specific first."""

_BOXES = {FACE_COLUMNS: "boxes", BODY_COLUMNS: "body_boxes", LANDMARK_COLUMNS: "landmarks"}
_SIZE = re.compile(r"(^|[^a-z])(w|h|width|height)$", re.IGNORECASE)
_SHOWN, _MOST_OTHERS = 100, 8


def read_labels(
    path: Path, delimiter: str, gender_codes: str, chosen: Mapping[str, str] | None = None, required: Sequence[str] = ()
) -> tuple[Table, GenderCodes, list[str]]:
    """Read a file of labels, and rename its columns by their meaning.

    Args:
        path, delimiter: see ``read_table``.
        gender_codes: see ``GenderCodes``.
        chosen, required: see ``find_columns``.

    Returns:
        The table, the parser of its column gender, and lines to print on the meaning of the columns.

    Raises:
        UserError: the file cannot be read, a column is missing, or its genders are unknown.
    """
    table, gender_of = read_table(path, delimiter), GenderCodes(gender_codes)
    columns = find_columns(table, chosen or {}, required)
    if len(table.columns) < 2:
        raise UserError(f"{table.location}: holds one column; give the images' names and at least one label")
    table = table.renamed(columns)
    if "gender" in columns:
        gender_of.check(table.columns["gender"], table.location, columns["gender"])
    has_options = bool(chosen)
    described = [*describe(table, columns, gender_of), *_other_labels(table, has_options)]
    return table, gender_of, [*described, *_unlabelled(table, columns, has_options)]


def find_columns(table: Table, chosen: Mapping[str, str], required: Sequence[str] = ()) -> dict[str, str]:
    """The columns of a table by their meaning.

    Args:
        table: the labels.
        chosen: names from options, by meaning; empty ones are searched in ``USUAL_NAMES``. Boxes and landmarks are
            several names, separated by commas, by the name of their option.
        required: meanings that must be found besides the image's name.

    Returns:
        ``{meaning: column}``, for ``Table.renamed``.

    Raises:
        UserError: a column is missing, or a box has a wrong number of columns.
    """
    for meaning in USUAL_NAMES:
        if chosen.get(meaning):
            _require(chosen[meaning], table, meaning)
    columns = usual_names(table.columns, chosen)
    for meanings, option in _BOXES.items():
        columns |= dict(zip(meanings, _several(chosen.get(option, ""), meanings, option, table), strict=False))
    for meaning in (IMAGE, *required):
        if meaning not in columns:
            missing = "no column names the images" if meaning == IMAGE else f"column {meaning} is missing"
            advice = f"name yours with --{_option(meaning)}" if chosen else f"call yours {_option(meaning)}"
            raise UserError(
                f"{table.location}: {missing}; the first line must name the columns, and holds "
                f"{','.join(table.columns)[:_SHOWN]!r}; {advice}"
            )
    return columns


def usual_names(names: Iterable[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """``{meaning: name}`` of the chosen names, or else of the most specific usual ones."""
    by_small = {name.lower().replace(" ", "_"): name for name in reversed(list(names))}
    names_by_meaning = {}
    for meaning, usual in USUAL_NAMES.items():
        candidates = (
            [chosen[meaning]] if chosen.get(meaning) else [by_small[name] for name in usual if name in by_small]
        )
        if candidates:
            names_by_meaning[meaning] = candidates[0]
    return names_by_meaning


def _option(meaning: str) -> str:
    return "path" if meaning == IMAGE else meaning


def _require(name: str, table: Table, meaning: str) -> None:
    """Raise UserError where a table has no such column."""
    if name not in table.columns:
        raise UserError(
            f"--{_option(meaning)} {name}: no column of {table.location.partition(' ')[2]}, which has "
            f"{','.join(table.columns)[:_SHOWN]}"
        )


def _several(text: str, meanings: Sequence[str], option: str, table: Table) -> list[str]:
    """The columns of a box or of landmarks."""
    names = [name.strip() for name in text.split(",")] if text else []
    if len(names) == len(FACE_COLUMNS) and any(map(_SIZE.search, names)):
        raise UserError(
            f"--{option} {text}: holds a width or a height; give the left, top, right and bottom edges, as in "
            f'labels["right"] = labels["{names[0]}"] + labels["{names[2]}"]'
        )
    if names and len(names) != len(meanings):
        raise UserError(f"--{option} {text}: give {len(meanings)} columns, parted by commas: {','.join(meanings)}")
    for name in names:
        _require(name, table, option)
    return names


def describe(table: Table, columns: Mapping[str, str], gender_of: GenderCodes) -> Iterator[str]:
    """Lines on the meaning of the columns and their values, to print before packing.

    Args:
        table: with columns named by meaning.
        columns: their original names, by meaning.
        gender_of: parser of the column gender.
    """
    names = {new: old for new, old in columns.items() if new not in LANDMARK_COLUMNS}
    meanings = ", ".join(f"{old} is {'the image' if new == IMAGE else new}" for new, old in names.items())
    yield f"{table.location}: {len(table)} rows; {meanings}"
    if "gender" in table.columns:
        counts = Counter(table.columns["gender"])
        values = (f"{value or 'empty'} -> {_gender(value, gender_of)} ({n})" for value, n in counts.most_common(6))
        yield f"gender: {', '.join(values)}{', ...' if len(counts) > 6 else ''}"
    if "age" in table.columns:
        yield f"age: {_ages(Counter(table.columns['age']))}"
    if SPLIT in table.columns:
        counts = Counter(table.columns[SPLIT])
        yield f"split: {', '.join(f'{value or None} ({n})' for value, n in counts.most_common(6))}"
    for name, column in table.columns.items():
        if name != "age" and (cell := next(filter(has_decimal_comma, column), None)):
            yield f"{name}: {cell} is no number here but a word; write {cell.replace(',', '.')}"


def _other_labels(table: Table, has_options: bool) -> Iterator[str]:
    """A line with the columns that become other labels, so that people or boxes under an unknown name are noticed."""
    known = {*USUAL_NAMES, *FACE_COLUMNS, *BODY_COLUMNS, *LANDMARK_COLUMNS}
    others = [name for name in table.columns if name not in known and name.isidentifier()]
    options = {"--identity if it says who it is": {IDENTITY}, "--boxes if it is an edge of a face": {*FACE_COLUMNS}}
    hints = [hint for hint, meant in options.items() if has_options and meant.isdisjoint(table.columns)]
    if others:
        advice = f"; name one with {', or '.join(hints)}" if hints else ""
        yield f"other columns are labels: {first_few(others, _MOST_OTHERS)}{advice}"


def _unlabelled(table: Table, columns: Mapping[str, str], has_options: bool) -> list[str]:
    known = {*columns, *FACE_COLUMNS, *BODY_COLUMNS, *LANDMARK_COLUMNS}
    return unlabelled("column", columns, [name for name in table.columns if name not in known], has_options)


def unlabelled(noun: str, meanings: Collection[str], others: Sequence[str], has_options: bool = True) -> list[str]:
    """If there are no ages or no genders, a line with other names that may be theirs.

    Args:
        noun: column or field.
        meanings: those that were found.
        others: names without a meaning.
        has_options: whether ``--age`` and ``--gender`` can name them.
    """
    missing = [meaning for meaning in ("age", "gender") if meaning not in meanings]
    if not missing or not others:
        return []
    advice = f"name it with {' or '.join(f'--{meaning}' for meaning in missing)}" if has_options else "rename it"
    return [f"no {noun} is {' or '.join(missing)}; if it is one of {first_few(others)}, {advice}"]


def _gender(cell: str, gender_of: GenderCodes) -> str:
    try:
        return gender_of(cell) or "unknown"
    except Rejected:
        return "?"


def _ages(counts: Counter[str]) -> str:
    """Counts of cells with a number, a range, nothing, or no valid age; with examples of ranges and invalid ages."""
    by_type: Counter[str] = Counter()
    example: dict[str, str] = {}
    for cell, count in counts.items():
        kind, meaning = _age_kind(cell)
        by_type[kind] += count
        example.setdefault(kind, f"{cell} -> {meaning}")
    forms = {"number": "{} numbers", "range": "{} ranges ({})", "unknown": "{} unknown", "?": "{} unreadable ({})"}
    words = (form.format(by_type[kind], example[kind]) for kind, form in forms.items() if by_type[kind])
    return ", ".join(words)


def _age_kind(cell: str) -> tuple[str, str]:
    if is_unknown(cell):
        return "unknown", ""
    try:
        lo, hi = age_of(cell) or (0, 0)
    except Rejected:
        return "?", "?"
    return ("number", cell) if lo == hi else ("range", f"{lo:g} to {hi:g}")
