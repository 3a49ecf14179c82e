"""What train.sbatch needs to know of a run, as a shell's assignments: ``settings.py --config FILE ...``."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError

ENGINE_VARIABLES = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_")


def settings(argv: list[str]) -> list[str]:
    """Lines of shell. Raises UserError for a mistake in the configuration, or an engine that has no launch file."""
    config = read_run_config(argv)
    variables = {"RUN_FOLDER": config.run, "TRAIN_DATA": config.data.train, "VERSIONS": versions()}
    engine = os.environ.get("ENGINE")
    exports = engine_environment(Path("launch/accelerate") / f"{engine}.yaml") if engine else {}
    return [f"{name}={shlex.quote(value)}" for name, value in variables.items()] + [
        f"export {name}={shlex.quote(value)}" for name, value in exports.items()
    ]


def engine_environment(file: Path) -> dict[str, str]:
    """What ``accelerate launch --config_file FILE`` sets for its processes to find their engine."""
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise UserError(f"ENGINE={file.stem}: there is no {file}; there are {known}")
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(["--config_file", str(file), "--main_process_port", "0", "train.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        _, environment = prepare_deepspeed_cmd_env(arguments)
    else:
        environment = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in environment.items() if name.startswith(ENGINE_VARIABLES)}


def versions() -> str:
    """The commit, where there is one, and what is installed."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "accelerate", "timm"))
    return f"commit {commit or 'unknown'}, Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    try:
        print("\n".join(settings(sys.argv[1:])))
    except UserError as error:
        print(f"train.sbatch: {error}", file=sys.stderr)
        sys.exit(2)
