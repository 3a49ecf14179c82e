"""``mivolo-lite pack``."""

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_exclude, add_reading_workers
from mivolo_lite.errors import UserError, one_line
from mivolo_lite.inference.framing import record_framing
from mivolo_lite.interfaces import require_interface
from mivolo_lite.packing.pack import Packed, pack
from mivolo_lite.packing.sources import SOURCES, summary_of
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.splitting import Splitting, parse_split
from mivolo_lite.packing.worker_shards import WorkerShard, pack_worker_shard
from mivolo_lite.ranges import float_range, int_range
from mivolo_lite.shards.exclude import left_out_line, read_exclusions
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.summary import content_of, doubtful_of
from mivolo_lite.wording import count_of, did_you_mean


def run(argv: Sequence[str]) -> None:
    """``pack SOURCE --out OUT ...``: write images and labels to shards."""
    if not argv or argv[0] not in SOURCES:
        if argv and argv[0] not in ("-h", "--help"):
            hint = did_you_mean(argv[0], SOURCES, otherwise=f"there are {', '.join(SOURCES)}")
            raise UserError(f"pack: no source {argv[0]!r}{hint}")
        print(_sources())
        return
    name, (parser, own_options) = argv[0], _parser(argv[0])
    options = parse(parser, _switches(argv[1:], parser))
    shard, own = options.pop("shard"), {option: options.pop(option) for option in own_options}
    source = _source(name, own, options)
    exclude = options["exclude"] = read_exclusions(options["exclude"])
    print(*source.preface, sep="\n", end="\n" if source.preface else "", flush=True)
    packed = pack_worker_shard(source, shard=WorkerShard.parse(shard), **options) if shard else pack(source, **options)
    if packed is None:
        print(f"worker shard {shard} is read; {options['out']} appears when the last one is")
        return
    framing = record_framing(list(packed.splits.values()))
    for line in (*_summary(packed, options["out"]), *([framing] if framing else [])):
        print(line.encode(errors="replace").decode())  # a file's name may be bytes that are no text
    if exclude:
        print(left_out_line(packed.excluded, exclude, packed.unmatched))


def _sources() -> str:
    """The sources, one a line."""
    width = max(map(len, SOURCES))
    lines = [f"  {name:{width}}  {summary_of(source)}" for name, source in SOURCES.items()]
    return "\n".join(
        [
            "usage: mivolo-lite pack SOURCE --out OUT ...",
            "sources:",
            *lines,
            "mivolo-lite pack SOURCE --help lists its options",
        ]
    )


def _parser(name: str) -> tuple[ArgumentParser, list[str]]:
    """The parser of a source's command, and the names of the source's own options."""
    require_interface("source", name, SOURCES[name], Source)
    parser = parser_of(f"pack {name}", run)
    parser.add_argument("--out", type=str, required=True, help="folder to create; it appears when packing is complete")
    parser.add_argument(
        "--split",
        type=str | None,
        default=None,
        help="shares of the splits (default: train=0.9,val=0.1), or the column with each row's split. Published splits "
        "and folds are kept unless shares are given",
    )
    parser.add_argument("--split_by", type=Literal["person", "image"], default="person", help="what stays in one split")
    parser.add_argument("--stratify", type=Literal["no", "age"], default="no", help="balance ages between splits")
    parser.add_argument("--folds", type=int_range(2, 1000) | None, default=None, help="number of folds")
    parser.add_argument("--samples_per_shard", type=int_range(1), default=1000, help="samples in each tar")
    parser.add_argument(
        "--seed", type=int_range(0, 2**63 - 1), default=0, help="seed of the splits and of the order in the shards"
    )
    add_reading_workers(parser)
    parser.add_argument("--max_reject_rate", type=float_range(0, 1), default=0.01, help="largest share of rejects")
    add_exclude(parser)
    parser.add_argument("--shard", type=str, help="share of an array job, such as 3/16; the last job writes OUT")
    try:
        own_options = parser.add_class_arguments(SOURCES[name], skip={"seed"})
    except ValueError as error:  # a parameter without a type
        raise UserError(f"source {name}: {one_line(error)}") from None
    _name_in(parser)
    return parser, own_options


def _name_in(parser: ArgumentParser) -> None:
    """Call the option ``--folder`` ``--in``, which cannot name a parameter in Python."""
    if folder := parser._option_string_actions.get("--folder"):
        folder.option_strings = ["--in"]
        parser._option_string_actions["--in"] = folder


def _switches(argv: Sequence[str], parser: ArgumentParser) -> list[str]:
    """The words of a command, ``--align`` alone as ``--align true``."""
    switches = {f"--{action.dest}" for action in parser._actions if getattr(action, "_typehint", None) is bool}
    followed = zip(argv, [*argv[1:], "--"], strict=False)
    return [
        f"{word}=true" if word.replace("-", "_").replace("__", "--", 1) in switches and after.startswith("--") else word
        for word, after in followed
    ]


def _source(name: str, own: dict[str, Any], options: dict[str, Any]) -> Source:
    """The source, and in ``options`` how its samples are divided."""
    split, by, stratify, folds = (options.pop(option) for option in ("split", "split_by", "stratify", "folds"))
    if split and "=" not in split and "split_column" in own:
        if own["split_column"]:
            raise UserError(
                f"--split {split} --split_column {own['split_column']}: both name a column; give one of them"
            )
        own["split_column"], split = split, None
    options["split"] = Splitting(parse_split(split) if split else None, by, stratify, folds)
    if "seed" in signature(SOURCES[name]).parameters:
        own["seed"] = options["seed"]
    return SOURCES[name](**own)


def _summary(packed: Packed, out: Path | str) -> Iterator[str]:
    """What was packed, in lines."""
    for name, index in packed.splits.items():
        yield f"{name}: {content_of(index)}: {index.folder}"
    if any(index.info["labels"]["age"]["known"] for index in packed.splits.values()):
        yield from (f"{name}: {_ages(index)}" for name, index in packed.splits.items())
    yield from packed.notes
    yield from dict.fromkeys(line for index in packed.splits.values() for line in doubtful_of(index))
    if packed.rejected:
        first = packed.rejected[0]
        yield (
            f"{count_of(len(packed.rejected), 'image')} rejected, listed in {Path(out) / 'rejected.jsonl'}; "
            f"the first is {first['image']}: {first['reason']}"
        )


def _ages(index: ShardIndex) -> str:
    """The share of each decade of ages."""
    age = index.info["labels"]["age"]
    return "ages " + (
        ", ".join(f"{decade} {count / age['known']:.0%}" for decade, count in age.get("by_decade", {}).items()) or "-"
    )
