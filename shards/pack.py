"""Pack images into shards: ``python shards/pack.py utkface --images DIR --out OUT``."""

import sys

from mivolo_lite.cli import main

if __name__ == "__main__":
    main(["pack", *sys.argv[1:]])
