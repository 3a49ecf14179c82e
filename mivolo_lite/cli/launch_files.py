"""``mivolo-lite launch-files``."""

from collections.abc import Sequence
from pathlib import Path

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.package_files import copy_launch_files


def run(argv: Sequence[str]) -> None:
    """``launch-files DIR``: copy the package's files for accelerate and SLURM, to edit."""
    parser = parser_of("launch-files", run)
    parser.add_argument("out", type=str, help="folder to create; train.sbatch expects `launch`")
    folder = Path(parse(parser, argv)["out"])
    for path in copy_launch_files(folder):
        print(path)
