"""When, by what and by which command a page was written."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from mivolo_lite import __version__
from mivolo_lite.credentials import without_credentials
from mivolo_lite.system import command_line


def provenance() -> dict[str, str]:
    """The facts by name. ``SOURCE_DATE_EPOCH`` sets the date, so that a page can be written again as it was."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    date = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return {"Date": f"{date:%Y-%m-%d %H:%M} UTC", "Version": f"mivolo_lite {__version__}", "Command": command()}


def command() -> str:
    """The command line of this process, without what must stay secret."""
    program = Path(sys.argv[0]).name
    program = "python -m mivolo_lite" if program == "__main__.py" else program
    return without_credentials(f"{program} {command_line(sys.argv[1:])}".rstrip())
