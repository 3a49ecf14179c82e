"""One run as a YAML file and dotted overrides: read, checked and typed before anything else happens."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from mivolo_lite.data.loader import DataConfig
from mivolo_lite.errors import UserError
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.models import MODELS
from mivolo_lite.tasks import Task
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.options import TrainConfig

REGISTRIES = {"model": MODELS, "method": METHODS}
DEFAULT_NAMES = {"model": "single", "method": "classification"}


@dataclass
class RunConfig:
    """A whole run.

    Attributes:
        run: folder of the run; must be new, or hold the run to resume.
        resume: ``auto`` goes on with the run in the folder if there is one, ``no`` wants a new one.
        start: where a new run gets all its weights from, heads included: a run's ``best`` or a converted checkpoint.
        ages: the ages that the model covers.
        tasks: what it learns beside age and gender.
        model: its ``name`` and options.
        method: its ``name`` and options.
    """

    run: str
    resume: str
    start: str
    data: DataConfig
    model: Any
    method: Any
    ages: AgeSpan
    optim: OptimConfig
    train: TrainConfig
    tasks: list[Task] = field(default_factory=list)


def read_run_config(argv: Sequence[str]) -> RunConfig:
    """The run that a command line means: ``--config FILE [--config FILE] [--a.b value ...]``.

    Raises:
        UserError: with the file (or "command line") and the key: an unknown key, a wrong type, an impossible value.
    """
    values, origin = _gather(argv)
    parser = _parser(values, origin)
    try:
        config = _plain(RunConfig(**vars(parser.instantiate(parser.parse_object(values)))))
    except (ArgumentError, ValueError) as error:
        raise _explained(error, origin) from None
    for key, value in (("run", config.run), ("data.train", config.data.train), ("data.val", config.data.val)):
        if not value:
            raise UserError(f"configuration: {key} is missing; give it in the file or as --{key} FOLDER")
    return config


def dump_run_config(config: RunConfig) -> str:
    """The resolved configuration as YAML that ``--config`` reads."""
    return yaml.safe_dump(named_options(config), sort_keys=False)


def help_text(argv: Sequence[str]) -> str:
    """Every option with its meaning and default, for the chosen model and method."""
    values, origin = _gather(argv)
    return _parser(values, origin).format_help()


def _gather(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested values of files and overrides, later ones winning, and where each dotted key comes from."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in _options(argv):
        for layer, where in _read_files(Path(value)) if key == "config" else [(_nested(key, value), "command line")]:
            for name in DEFAULT_NAMES:  # `method: coral` is short for `method: {name: coral}`
                if isinstance(layer.get(name), str):
                    layer[name] = {"name": layer[name]}
            _merge(values, layer)
            origin.update((dotted, where) for dotted in _dotted(layer))
    return values, origin


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    arguments = iter(argv)
    for argument in arguments:
        if argument in ("-h", "--help"):
            continue
        if not argument.startswith("--"):
            raise UserError(f"command line: {argument!r} is not an option; write --key value, as in --optim.lr 3e-4")
        key, equals, value = argument[2:].partition("=")
        value = value if equals else next(arguments, None)
        if value is None:
            raise UserError(f"command line: --{key} has no value")
        yield key, value


def _read_files(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """A file's values, after those of the file that its ``base`` names, relative to it; each with where it stood."""
    layer = _read_yaml(path)
    base = layer.pop("base", None)
    if base is not None:
        yield from _read_files(path.parent / base)
    yield layer, str(path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values, as in `run: runs/first`")
    return content


def _nested(key: str, value: str) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    # Another model or method brings its own options: those of the one it replaces mean nothing to it.
    if "name" in layer and layer["name"] != into.get("name", layer["name"]):
        into.clear()
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def _parser(values: dict[str, Any], origin: dict[str, str]) -> ArgumentParser:
    """A parser with the options of the chosen model and method, once every key is known to exist."""
    groups: dict[str, type] = {"data": DataConfig}
    for kind, registry in REGISTRIES.items():
        groups[kind] = _named_config(kind, registry, (values.get(kind) or {}).get("name"), origin)
    groups |= {"ages": AgeSpan, "optim": OptimConfig, "train": TrainConfig}
    _check_keys(values, groups, origin)
    parser = ArgumentParser(
        prog="train.py", exit_on_error=False, usage="train.py --config FILE [--key.of.option VALUE ...]"
    )
    parser.add_argument("--run", type=str, default="", help="folder of the run, as in runs/first")
    parser.add_argument("--resume", type=str, default="no", help="`auto` goes on with the run in the folder, if any")
    parser.add_argument(
        "--start", type=str, default="", help="folder with all weights of a new run, as in runs/first/best"
    )
    parser.add_argument("--tasks", type=list[Task], default=[], help="what is learnt beside age and gender")
    for name, group in groups.items():
        parser.add_class_arguments(group, name)
    return parser


def _named_config(kind: str, registry: dict[str, type], name: str | None, origin: dict[str, str]) -> type:
    name = name or DEFAULT_NAMES[kind]
    if name not in registry:
        raise UserError(f"{_where(f'{kind}.name', origin)}: {kind} {name!r} is not known{_suggest(name, registry)}")
    config = registry[name].Config
    named = make_dataclass(
        config.__name__,
        [("name", str, field(default=name))],
        bases=(config,),
        frozen=config.__dataclass_params__.frozen,
    )
    named.__doc__ = config.__doc__
    return named


def _check_keys(values: dict[str, Any], groups: dict[str, type], origin: dict[str, str]) -> None:
    known = {"run": None, "resume": None, "start": None, "tasks": None} | groups
    for key in groups:
        if not isinstance(values.get(key, {}), dict):
            raise UserError(f"{_where(key, origin)}: {key} must hold options, as in `{key}: {{option: value}}`")
    for key in _unknown(values, known, ""):
        options = list(_all_keys(known, ""))
        raise UserError(f"{_where(key, origin)}: {key} is not an option{_suggest(key, options)}")


def _unknown(values: dict[str, Any], known: dict[str, type | None], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if key not in known:
            yield f"{prefix}{key}"
        elif isinstance(value, dict) and known[key] is not None:
            yield from _unknown(value, _subkeys(known[key]), f"{prefix}{key}.")


def _all_keys(known: dict[str, type | None], prefix: str) -> Iterator[str]:
    for key, group in known.items():
        if group is None:
            yield prefix + key
        else:
            yield from _all_keys(_subkeys(group), f"{prefix}{key}.")


def _subkeys(group: type) -> dict[str, type | None]:
    return {option.name: option.type if is_dataclass(option.type) else None for option in fields(group)}


def _suggest(word: str, choices) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    if not close:  # the right option in the wrong group is a common slip
        close = [choice for choice in choices if choice.rpartition(".")[2] == word.rpartition(".")[2]]
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(choices)}"


def _explained(error: Exception, origin: dict[str, str]) -> UserError:
    """jsonargparse's message in one line, headed by where the value was written."""
    message = " ".join(str(error).split())
    longest_first = sorted(origin, key=len, reverse=True)
    named = [key for key in longest_first if f'"{key}"' in message or f"{key}:" in message]
    key = next(iter(named or [key for key in longest_first if key.rpartition(".")[2] in message.split()]), "")
    return UserError(f"{_where(key, origin)}: {message}")


def _where(key: str, origin: dict[str, str]) -> str:
    return origin.get(key, "configuration")


def named_options(value: Any) -> Any:
    """A configuration, or a part of it, as plain values: of a model or a method its name first, then its options."""
    if is_dataclass(value):
        names = sorted((option.name for option in fields(value)), key=lambda name: name != "name")
        return {name: named_options(getattr(value, name)) for name in names}
    if isinstance(value, list):
        return [named_options(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """jsonargparse's restricted numbers, which YAML and JSON do not know, as the plain ones they are."""
    if is_dataclass(value):
        for option in fields(value):
            object.__setattr__(value, option.name, _plain(getattr(value, option.name)))
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    kind = next((kind for kind in (bool, int, float) if isinstance(value, kind)), None)
    return value if kind is None else kind(value)
