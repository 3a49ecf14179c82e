"""Photos with MiVOLO's annotation CSV: several people a photo, each with labels, a face box and a body box."""

from pathlib import Path
from typing import Any

from mivolo_lite.packing.sources.columns import read_labels
from mivolo_lite.packing.sources.table_source import TableSource


class AnnotationSource(TableSource):
    """Crops of annotated people in photos, by the rules of MiVOLO's training reader.

    Rows of a photo with nearly the same box are one person. People without age and gender are no samples, but are
    blanked out of the others' bodies. Other columns are written to the samples' JSON, for tasks.

    Args:
        csv: ``img_name,age,gender,face_x0,face_y0,face_x1,face_y1[,person_x0,person_y0,person_x1,person_y1]``: corners
            in pixels of the upright photo; age a number, ``25;32``, ``25-32``, ``(25, 32)`` or ``70+``; gender M or
            F, male or female; -1 for whatever is absent. Without any box columns each image is a face.
        gender_codes: meaning of other cells of the column gender, such as 0=M,1=F. Without it numbers are an error.
        delimiter: comma, semicolon, tab or bar; auto determines it from the first line.
    """

    def __init__(self, images: Path, csv: Path, gender_codes: str = "", delimiter: str = "auto", **options: Any):
        required = ("age", "gender")
        table, gender_of, self.preface = read_labels(Path(csv), delimiter, gender_codes, required=required)
        super().__init__(images, table, gender_of, **options)
