"""Python for trainings on nodes, half a second for each step: they wait for nodes, and other tests need the CPUs."""

import runpy
import sys
import time

from mivolo_lite.training.step import OptimizerStep

step = OptimizerStep.__call__


def slow_step(*arguments):
    time.sleep(0.5)
    return step(*arguments)


OptimizerStep.__call__ = slow_step
del sys.argv[0]
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
