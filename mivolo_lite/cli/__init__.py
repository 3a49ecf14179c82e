"""The command lines, one module a command.

torch, timm, OpenCV and matplotlib take seconds to import, and ``--help`` needs none of them: a command imports what
needs them after it has parsed its options.
"""

from mivolo_lite.cli.entry import main

__all__ = ["main"]
