"""Reads, checks and types a run's YAML file and dotted overrides before anything else happens."""

from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import is_dataclass

from jsonargparse import ArgumentParser

from mivolo_lite.config.from_checkpoint import with_checkpoint
from mivolo_lite.config.layers import COMMAND_LINE, gather
from mivolo_lite.config.schema import REGISTRIES, SECTIONS, check_keys, schema_of
from mivolo_lite.config.seed import fill_in_seed
from mivolo_lite.config.values import build_value, expand_paths
from mivolo_lite.errors import UserError
from mivolo_lite.option_help import TypesInWords, describe_section
from mivolo_lite.package_files import PREFIX, package_configs
from mivolo_lite.ranges import checked_options
from mivolo_lite.tasks import Task
from mivolo_lite.training.run_config import RunConfig

_NAMED = (*REGISTRIES, "data.augment")
"""Sections that may be given as a name."""


def read_run_config(argv: Sequence[str]) -> RunConfig:
    """The run of a command line: ``--config FILE [--config FILE] [--a.b value ...]``.

    ``--config pkg:NAME`` reads a configuration of the package. ``~`` and ``$VARIABLES`` in paths are expanded. If
    ``init_from`` names a checkpoint, it sets the defaults of model, method, ages and image size.
    ``{seed}`` in a path that the run learns from stands for ``train.seed``.

    Raises:
        UserError: with the file (or "command line") and the key: an unknown key, a wrong type, an impossible value, a
            repeated key, a run folder at a URL, a damaged card in ``init_from``.
    """
    values, origin = gather(argv)
    fill_in_seed(values, origin)
    values = with_checkpoint(values, origin)
    schema = schema_of(values, origin)
    check_keys(values, schema, origin)
    sections = {key: values.get(key, {}) for key, kind in schema.items() if key in values or is_dataclass(kind)}
    config = RunConfig(**{key: build_value(schema[key], value, key, origin) for key, value in sections.items()})
    expand_paths(config, origin)
    for key, value in (("run", config.run), ("data.train", config.data.train), ("data.val", config.data.val)):
        if not value:
            raise UserError(f"configuration: {key} is missing; give it in the file or as --{key} FOLDER")
    return config


def is_on_command_line(option: str, argv: Sequence[str]) -> bool:
    """Whether the command line itself sets an option, and not a file that it names."""
    return gather(argv)[1].get(option) == COMMAND_LINE


def help_text(argv: Sequence[str]) -> str:
    """Every option with its meaning and default, for the chosen model and method."""
    values, origin = gather(argv)
    parser = ArgumentParser(
        prog="mivolo-lite train",
        usage="mivolo-lite train --config FILE [--key.of.option VALUE ...]",
        formatter_class=TypesInWords,
    )
    parser.add_argument("--config", type=str, help=f"YAML file, or {PREFIX}NAME: {', '.join(package_configs())}")
    parser.add_argument("--run", type=str, default="", help="folder of the run, as in runs/first")
    parser.add_argument("--resume", type=str, default="no", help="`auto` resumes the run in the folder, if any")
    parser.add_argument(
        "--init-from", type=str, default="", help="checkpoint with all weights of a new run; {seed}: train.seed"
    )
    parser.add_argument("--tasks", type=list[Task], default=[], help="what is learnt in addition to age and gender")
    for name, group in schema_of(values, origin).items():
        if is_dataclass(group):
            parser.add_class_arguments(checked_options(group), name)
    for action in parser._actions:  # jsonargparse would accept `--key+`; a run does not
        action.option_strings = [option for option in action.option_strings if not option.endswith("+")]
        if action.dest in SECTIONS:
            describe_section(action, or_name=action.dest in _NAMED)
        elif action.dest.endswith(".help"):
            action.help = SUPPRESS
    return parser.format_help()
