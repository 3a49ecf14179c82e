"""Train: ``accelerate launch train.py --config configs/X.yaml [--optim.lr 3e-4 ...]``."""

import sys

from mivolo_lite.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
