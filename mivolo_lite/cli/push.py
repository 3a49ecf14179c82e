"""``mivolo-lite push``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of


def run(argv: Sequence[str]) -> None:
    """``push RUN/best user/name``: upload a checkpoint and its model card to the Hugging Face hub."""
    parser = parser_of("push", run)
    parser.add_argument("checkpoint", type=str, help="the `best` folder of a run, or a converted checkpoint")
    parser.add_argument("repo", type=str, help="user/name, or user/name@branch; created if needed")
    parser.add_argument("--onnx", type=bool, default=False, nargs="?", const=True, help="also upload model.onnx")
    parser.add_argument(
        "--private", type=bool, default=False, nargs="?", const=True, help="create a private repository"
    )
    parser.add_argument(
        "--evaluation", type=str | None, default=None, help="folder of an evaluation whose errors the model card shows"
    )
    parser.add_argument("--licence", type=str, default="", help="licence of the weights, such as cc-by-4.0")
    parser.add_argument(
        "--data_licences", type=str, nargs="+", default=[], help='of the training data, as "FairFace: CC BY 4.0"'
    )
    options = parse(parser, argv)
    from mivolo_lite.inference.push import push

    print(f"pushed: {push(**options)}")
