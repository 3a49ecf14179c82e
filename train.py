"""Train: ``accelerate launch train.py --config configs/X.yaml [--optim.lr 3e-4 ...]``."""

import sys

from mivolo_lite.affinity import spread_over_cpus
from mivolo_lite.training.preemption import listen

if __name__ == "__main__":
    listen()
    spread_over_cpus()  # before torch is imported, which reads where its threads may run

    from mivolo_lite.cli import main

    main(["train", *sys.argv[1:]])
