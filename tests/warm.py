"""All that commands and engines import, so that a case's process has it from the start: 3 s of each case otherwise."""

import logging
import warnings
from importlib import import_module
from importlib.util import find_spec

import torch

from tests.forked import COMMAND_MODULES

for name in ("tests.timm_without_wandb", *COMMAND_MODULES, "matplotlib.pyplot", "torch._dynamo", "tests.fuzz.cases"):
    import_module(name)
if find_spec("deepspeed"):  # 4 s of each rank that runs it
    import_module("deepspeed")
    import_module("transformers.integrations.deepspeed")
    import_module("deepspeed.runtime.zero.muon.muon_optimizer")  # compiles: torch imports its compiler, another 3 s
torch.set_num_threads(1)
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
