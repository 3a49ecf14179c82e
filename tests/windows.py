"""Runs commands on Windows, or as there where another system can: ``python -m tests.windows '[["predict", "x"]]'``.

Elsewhere, the package, and it alone, finds no module and no name that Windows lacks, must say the encoding of each text
file, and has its processes spawned. Windows's paths, and what it does with files that are open, are not imitated.
"""

import builtins
import json
import multiprocessing
import os
import select
import signal
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.lacking import MODULES, NAMES


class AsOnWindows(ModuleType):
    """A module without the names that Windows lacks, and with some of its own."""

    def __init__(self, module: ModuleType, **own: Any):
        super().__init__(module.__name__)
        self._module = module
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        if name in NAMES.get(self.__name__, ()):
            raise AttributeError(f"Windows has no {self.__name__}.{name}")
        return getattr(self._module, name)


def imitate() -> None:
    """Let the package's imports find Windows from now on."""
    found = {
        "os": AsOnWindows(os, O_BINARY=0),
        "select": AsOnWindows(select),
        "signal": AsOnWindows(signal),
        "sys": AsOnWindows(sys, platform="win32"),
        "msvcrt": SimpleNamespace(LK_NBLCK=2, locking=_locking),
    }
    imported = builtins.__import__

    def imported_as_on_windows(name: str, scope: Any = None, *rest: Any, **options: Any) -> Any:
        if scope and scope.get("__name__", "").split(".")[0] == "mivolo_lite":
            if name in MODULES:
                raise ModuleNotFoundError(f"Windows has no {name}")
            if name in found:
                return found[name]
        return imported(name, scope, *rest, **options)

    builtins.__import__ = imported_as_on_windows
    warnings.filterwarnings("error", category=EncodingWarning, module=r"mivolo_lite\.")
    multiprocessing.set_start_method("spawn", force=True)


def _locking(descriptor: int, mode: int, size: int) -> None:
    import fcntl

    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, size)


if sys.platform != "win32":
    imitate()  # also in spawned processes, which import this module

if __name__ == "__main__":
    from mivolo_lite.cli.entry import run

    for command in json.loads(sys.argv[1]):
        sys.argv[1:] = command
        try:
            run()
        except SystemExit as ended:  # as of --help
            if ended.code:
                raise
        print(f"done: {command[0]}", flush=True)
