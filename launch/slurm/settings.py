"""What train.sbatch needs to know of a run, as a shell's assignments: ``settings.py --config FILE ...``."""

import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.training.run_config import named_options


def versions() -> str:
    """The commit, where there is one, and what is installed."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "accelerate", "timm"))
    return f"commit {commit or 'unknown'}, Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    try:
        config = read_run_config(sys.argv[1:])
    except UserError as error:
        print(f"train.sbatch: {error}", file=sys.stderr)
        sys.exit(2)
    train = named_options(config.data.train)  # of a list, the sets and their weights
    data = train if isinstance(train, str) else json.dumps(train)
    for name, value in {"RUN_FOLDER": config.run, "TRAIN_DATA": data, "VERSIONS": versions()}.items():
        print(f"{name}={shlex.quote(value)}")
