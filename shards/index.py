"""Index shards that somebody else wrote: ``python shards/index.py DIR``."""

import sys

from mivolo_lite.cli import main

if __name__ == "__main__":
    main(["index", *sys.argv[1:]])
