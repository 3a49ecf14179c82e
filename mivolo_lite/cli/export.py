"""``mivolo-lite export``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_tta
from mivolo_lite.errors import UserError
from mivolo_lite.inference.formats import Format, Precision


def run(argv: Sequence[str]) -> None:
    """``export --checkpoint RUN/best --out model.onnx``: export to ONNX, torch.export or timm."""
    parser = parser_of("export", run)
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=True,
        help="the `best` folder of a run, `default` for the package's own, or hf://user/name",
    )
    parser.add_argument("--out", type=str, required=True, help="file to write")
    parser.add_argument(
        "--format",
        type=Format,
        default="onnx",
        help="`torch` is a torch.export program; `timm` is the backbone's weights without heads",
    )
    parser.add_argument(
        "--precision", type=Precision, default="fp32", help="precision of the backbone; heads are float32"
    )
    parser.add_argument(
        "--input",
        type=Literal["face", "body"] | None,
        default=None,
        help="with `--format timm`, which backbone of a model with two; default: face",
    )
    add_tta(parser)
    options = parse(parser, argv)
    from mivolo_lite.inference.export import export
    from mivolo_lite.inference.timm_weights import export_backbone

    which = options.pop("input")
    if options["format"] == "timm":
        if options["tta"] is not None:
            raise UserError("export: --tta does nothing for --format timm, a backbone's plain weights; leave it out")
        print(export_backbone(options["checkpoint"], options["out"], which, options["precision"]))
    elif which is not None:
        raise UserError(f"export: --input is for --format timm; --format {options['format']} has all inputs")
    else:
        print("largest differences from the estimator's answers:", *export(**options), sep="\n")
    print(f"written to {options['out']}: {Path(options['out']).stat().st_size / 1e6:.1f} MB")
