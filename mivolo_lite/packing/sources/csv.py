"""Any table of labels: the general source."""

from pathlib import Path
from typing import Any

from mivolo_lite.labels import AGE_STD, IDENTITY
from mivolo_lite.packing.sources.cells import IMAGE, SPLIT
from mivolo_lite.packing.sources.columns import read_labels
from mivolo_lite.packing.sources.table_source import TableSource


class CsvSource(TableSource):
    """Images and any table of labels; columns are found by their usual names.

    A row is a person. Without boxes the whole image is the face. Other columns are written to the samples' JSON, for
    tasks. Before packing, the command prints how it reads each column and value.

    Args:
        csv: CSV, JSON lines or Parquet.
        path: column with the images' names; by default path, file, img_name, image or file_name.
        age: column with a number, ``25;32``, ``25-32``, ``(25, 32)``, ``70+`` or ``60+ years``; by default age or
            real_age.
        gender: column with M or F, male or female; by default gender, sex or Male.
        group: column with the ethnicity or another group; by default group or race.
        identity: column with the person's name or number; a person's images go into the same split.
        age_std: column with the standard deviation of the age, in years.
        split_column: column with each row's split; ``--split COLUMN`` is the same.
        boxes: the four columns of the face's box: left, top, right and bottom in pixels.
        body_boxes: the four columns of the body's box.
        landmarks: the ten columns of five landmarks, x and y of left eye, right eye, nose, and both mouth corners.
        gender_codes: meaning of other cells of the column gender, such as 0=M,1=F. Without it numbers are an error.
        delimiter: comma, semicolon, tab or bar; auto determines it from the first line.
    """

    def __init__(
        self,
        images: Path,
        csv: Path,
        path: str = "",
        age: str = "",
        gender: str = "",
        group: str = "",
        identity: str = "",
        age_std: str = "",
        split_column: str = "",
        boxes: str = "",
        body_boxes: str = "",
        landmarks: str = "",
        gender_codes: str = "",
        delimiter: str = "auto",
        **options: Any,
    ):
        chosen = {IMAGE: path, "age": age, "gender": gender, "group": group, IDENTITY: identity, AGE_STD: age_std}
        chosen |= {SPLIT: split_column, "boxes": boxes, "body_boxes": body_boxes, "landmarks": landmarks}
        table, gender_of, self.preface = read_labels(Path(csv), delimiter, gender_codes, chosen)
        super().__init__(images, table, gender_of, **options)
