"""``mivolo-lite push``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of


def run(argv: Sequence[str]) -> None:
    """``push RUN/best user/name``: a checkpoint onto the Hugging Face hub, with a page that says what it is."""
    parser = parser_of("push", run)
    parser.add_argument("checkpoint", type=str, help="the `best` folder of a run, or a converted checkpoint")
    parser.add_argument("repo", type=str, help="user/name, or user/name@branch; made where there is none")
    parser.add_argument("--onnx", type=bool, default=False, nargs="?", const=True, help="also upload model.onnx")
    parser.add_argument("--private", type=bool, default=False, nargs="?", const=True, help="make it for you alone")
    parser.add_argument(
        "--evaluation", type=str | None, default=None, help="folder of an evaluation; the page shows its errors"
    )
    parser.add_argument("--licence", type=str, default="", help="of the weights, as in apache-2.0 or cc-by-nc-4.0")
    parser.add_argument(
        "--data_licences", type=str, nargs="+", default=[], help='as in "FairFace: CC BY 4.0", one for each data set'
    )
    options = parse(parser, argv)
    from mivolo_lite.inference.push import push

    print(f"pushed: {push(**options)}")
