"""``mivolo-lite find-faces``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mivolo_lite import __version__
from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.inference.defaults import MIN_SCORE, YUNET
from mivolo_lite.output import printable
from mivolo_lite.ranges import float_range
from mivolo_lite.wording import count_of

if TYPE_CHECKING:
    from mivolo_lite.inference.find_faces import Found


def run(argv: Sequence[str]) -> None:
    """``find-faces --images DIR --csv FILE --out DIR``: a table of labels with the boxes of the faces."""
    parser = parser_of("find-faces", run)
    parser.add_argument("--images", type=str, required=True, help="folder to which the names are relative")
    parser.add_argument(
        "--csv", type=str, required=True, help="labels: CSV, JSON lines or Parquet, one row for each photo"
    )
    parser.add_argument("--out", type=str, required=True, help="folder for labels.csv and rejected.jsonl")
    parser.add_argument("--path", type=str, default="", help="column with the photos' names; found by default")
    parser.add_argument("--delimiter", type=str, default="auto", help="auto, comma, semicolon, tab or bar")
    parser.add_argument("--detector", type=str, default=YUNET, help=f"{YUNET}, or a file")
    parser.add_argument(
        "--min_score", type=float_range(0, 1), default=MIN_SCORE, help="lowest detector score of a face"
    )
    options = parse(parser, argv)

    from mivolo_lite.inference.detect import open_detector
    from mivolo_lite.inference.find_faces import find_faces
    from mivolo_lite.inference.resuming import Unfinished

    images, labels, out = (Path(options[name]) for name in ("images", "csv", "out"))
    detector = open_detector(options["detector"], options["min_score"])
    settings = {"command": "find-faces", "version": __version__}
    settings |= {name: options[name] for name in ("detector", "min_score")}
    try:
        found = find_faces(images, labels, out, detector, settings, options["path"], options["delimiter"])
    except Unfinished as unfinished:
        if unfinished.written is not None:
            _report(unfinished.written, out)
        raise unfinished.explained() from None
    _report(found, out)


def _report(found: "Found", out: Path) -> None:
    from mivolo_lite.inference.find_faces import LABELS_FILE
    from mivolo_lite.shards.rejects import REJECTED_FILE

    print(f"{count_of(found.faces, 'photo')} with a face: {out / LABELS_FILE}, for `mivolo-lite pack csv --csv`")
    if found.several:
        print(f"{found.several} of them show several faces; the labels went to the largest and most central")
    if found.rejected:
        first = found.rejected[0]
        print(
            f"{count_of(len(found.rejected), 'photo')} left out, listed in {out / REJECTED_FILE}; "
            + printable(f"the first is {first['image']}: {first['reason']}")
        )
