"""Find copies, contradicting labels and poor images in indexed shards: ``python shards/audit.py DIR [DIR ...]``."""

import sys

from mivolo_lite.cli import main

if __name__ == "__main__":
    main(["audit", *sys.argv[1:]])
