"""Everything that commands import, so that a case's process has it from the start: 3 s of each case otherwise."""

import logging
import warnings
from importlib import import_module

import torch

from mivolo_lite.cli.entry import COMMANDS

MODULES = tuple(f"cli.{command.replace('-', '_')}" for command in COMMANDS)

for name in MODULES:
    import_module(f"mivolo_lite.{name}")
for name in ("matplotlib.pyplot", "torch._dynamo", "tests.fuzz.cases"):
    import_module(name)
torch.set_num_threads(1)
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
