"""``mivolo-lite train``."""

import sys
from collections.abc import Sequence

from mivolo_lite.config import help_text, read_run_config
from mivolo_lite.distributed.heartbeat import ending_together
from mivolo_lite.distributed.preemption import EXIT_CODE
from mivolo_lite.training.loop import Trainer


def run(argv: Sequence[str]) -> None:
    """``train --config FILE ...``: the same as ``train.py``."""
    if "-h" in argv or "--help" in argv:
        print(help_text(argv))
        return
    config = read_run_config(argv)
    with ending_together():
        complete = Trainer(config).train()
    if not complete:
        sys.exit(EXIT_CODE)
