"""``mivolo-lite convert``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of


def run(argv: Sequence[str]) -> None:
    """``convert official.pth.tar OUT``, or ``convert RUN/best official.pth.tar``: MiVOLO's or SwinFace's files."""
    parser = parser_of("convert", run)
    parser.add_argument(
        "source", type=str, help="a published file or folder, `hf://user/name`, or the `best` folder of such a model"
    )
    parser.add_argument("out", type=str, help="folder or file to write")
    options = parse(parser, argv)
    from mivolo_lite.convert.convert import convert, licence_line

    out = convert(**options)
    if out.is_dir():
        print(licence_line(options["source"]))
    print(f"written to {out}")
