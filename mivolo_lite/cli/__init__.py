"""The command lines, one module a command."""

from mivolo_lite.cli.entry import main

__all__ = ["main"]
