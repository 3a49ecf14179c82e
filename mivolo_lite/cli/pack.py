"""``mivolo-lite pack``."""

import os
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.errors import UserError
from mivolo_lite.packing.pack import pack, parse_split
from mivolo_lite.packing.sources import SOURCES
from mivolo_lite.packing.worker_shards import WorkerShard, pack_worker_shard
from mivolo_lite.ranges import float_range, int_range
from mivolo_lite.shards.exclude import read_exclusions
from mivolo_lite.shards.summary import content_of


def run(argv: Sequence[str]) -> None:
    """``pack SOURCE --out OUT ...``: images become shards."""
    if not argv or argv[0] not in SOURCES:
        if argv and argv[0] not in ("-h", "--help"):
            raise UserError(f"pack: no source {argv[0]!r}; there are {', '.join(SOURCES)}")
        print(f"usage: pack {{{','.join(SOURCES)}}} --out OUT ...\npack SOURCE --help tells a source's options")
        return
    parser = parser_of(f"pack {argv[0]}", run)
    parser.add_argument("--out", type=str, required=True, help="folder that appears when all is done")
    parser.add_argument("--split", type=str, default="train=0.9,val=0.1", help="share of the images by split")
    parser.add_argument("--samples_per_shard", type=int_range(1), default=1000)
    parser.add_argument("--seed", type=int_range(0, 2**63 - 1), default=0, help="of the split and the mixing")
    parser.add_argument("--workers", type=int_range(1, 1024), default=os.cpu_count())
    parser.add_argument("--max_reject_rate", type=float_range(0, 1), default=0.01, help="share of unusable images")
    parser.add_argument("--exclude", type=str | None, default=None, help="list of samples to leave out, one a line")
    parser.add_argument("--shard", type=str, help="3/16, for array jobs: read this share; the last command writes OUT")
    source_options = parser.add_class_arguments(SOURCES[argv[0]], skip={"seed"})
    options = parse(parser, argv[1:])
    options["split"] = parse_split(options["split"])
    options["exclude"] = read_exclusions(options["exclude"])
    own = {name: options.pop(name) for name in source_options}
    if "seed" in signature(SOURCES[argv[0]]).parameters:
        own["seed"] = options["seed"]
    source = SOURCES[argv[0]](**own)
    shard = options.pop("shard")
    packed = pack_worker_shard(source, shard=WorkerShard.parse(shard), **options) if shard else pack(source, **options)
    if packed is None:
        print(f"worker shard {shard} is read; {options['out']} appears when the last one is")
        return
    for name, index in packed.splits.items():
        print(f"{name}: {content_of(index)}: {index.folder}")
    for note in packed.notes:
        print(note)
    if packed.rejected:
        first = packed.rejected[0]
        print(
            f"{len(packed.rejected)} images rejected, listed in {Path(options['out']) / 'rejected.jsonl'}; "
            f"the first is {first['image']}: {first['reason']}"
        )
    if options["exclude"]:
        print(f"{packed.excluded} samples left out, of {len(options['exclude'])} names to leave out")
