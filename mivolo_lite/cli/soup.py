"""``mivolo-lite soup``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mivolo_lite.card import Tta
from mivolo_lite.cli.combining import combining_parser, tell_next_step
from mivolo_lite.cli.options import parse
from mivolo_lite.cli.shared_options import add_tta
from mivolo_lite.errors import UserError


def run(argv: Sequence[str]) -> None:
    """``soup RUN/best RUN/best [...] --out DIR``: average the weights of several fine-tuned models."""
    parser = combining_parser("soup", run, "two or more models that started from the same weights")
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="make a greedy soup on this packed data, which no model may have been trained on",
    )
    add_tta(parser)
    options = parse(parser, argv)
    data, tta = options.pop("data"), options.pop("tta")
    if tta and not data:
        raise UserError("--tta: give --data as well")
    if data:
        from mivolo_lite.convert.greedy_soup import greedy_soup

        print(f"MAE in years on {data}:", flush=True)
        tell_next_step(greedy_soup(**options, error_of=_mae_on(data, tta)))
    else:
        from mivolo_lite.convert.soup import soup

        tell_next_step(soup(**options))


def _mae_on(data: str, tta: Tta | None) -> Callable[[Path | str], float]:
    from mivolo_lite.evaluation.evaluate import evaluate

    def mae(checkpoint: Path | str) -> float:
        with TemporaryDirectory() as out:
            metrics = evaluate(checkpoint, data, out, report=False, tta=tta)
        if "trained_on" in metrics["data"]:
            raise UserError(f"--data {data}: {checkpoint} was trained on it; give samples that none has learnt")
        if metrics["mae"] is None:
            raise UserError(f"--data {data}: has no ages; give data with ages")
        return metrics["mae"]

    return mae
