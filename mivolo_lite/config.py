"""One run as a YAML file and dotted overrides: read, checked and typed before anything else happens."""

import os
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass
from functools import cache
from inspect import cleandoc
from itertools import groupby
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from mivolo_lite.card import DEFAULT, Card, locate
from mivolo_lite.errors import UserError
from mivolo_lite.hub import is_hub_address
from mivolo_lite.interfaces import require_interface
from mivolo_lite.loading.loader import DataSetConfig
from mivolo_lite.loading.transforms import PRESETS
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeMethod
from mivolo_lite.models import MODELS
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.old_names import current_key
from mivolo_lite.option_help import TypesInWords, describe_section
from mivolo_lite.option_values import check_value
from mivolo_lite.package_files import PREFIX, package_config, package_configs
from mivolo_lite.paths import expand_path, local_path
from mivolo_lite.ranges import checked_options
from mivolo_lite.tasks import Task, check_tasks
from mivolo_lite.training.checkpoint import finished_checkpoints
from mivolo_lite.training.run_config import RunConfig
from mivolo_lite.training.run_folder import RunFolder
from mivolo_lite.wording import did_you_mean
from mivolo_lite.yaml_file import parse_yaml, read_yaml_file

REGISTRIES: dict[str, dict[str, Any]] = {"model": MODELS, "method": METHODS}
INTERFACES: dict[str, type] = {"model": AgeModel, "method": AgeMethod}
DEFAULT_NAMES = {"model": "single", "method": "classification"}

_MOST_DOTS = 10
_COMMAND_LINE = "command line"
_DATA_SETS = ("train", "val")
"""Options of ``data`` that may be a mapping."""
_NAMED = (*REGISTRIES, "data.augment")
"""Sections for which a name may stand."""


def _section_names(group: Any, prefix: str = "") -> Iterator[str]:
    for option in fields(group):
        if is_dataclass(option.type):
            yield prefix + option.name
            yield from _section_names(option.type, f"{prefix}{option.name}.")


SECTIONS = {*REGISTRIES, *_section_names(RunConfig)}
"""Keys that hold options."""


def read_run_config(argv: Sequence[str]) -> RunConfig:
    """The run that a command line means: ``--config FILE [--config FILE] [--a.b value ...]``.

    ``--config pkg:NAME`` reads a configuration of the package. ``~`` and ``$VARIABLES`` in paths are expanded. Where
    ``init_from`` names a checkpoint, what is not stated of model, method, ages and image size is the checkpoint's.

    Raises:
        UserError: with the file (or "command line") and the key: an unknown key, a wrong type, an impossible value, a
            key that is there twice, a run folder at a URL, a damaged card in ``init_from``.
    """
    values, origin = _gather(argv)
    values = _with_checkpoint(values, origin)
    schema = _schema(values, origin)
    _check_keys(values, schema, origin)
    sections = {key: values.get(key, {}) for key, kind in schema.items() if key in values or is_dataclass(kind)}
    config = RunConfig(**{key: _build(schema[key], value, key, origin) for key, value in sections.items()})
    _expand_paths(config, origin)
    for key, value in (("run", config.run), ("data.train", config.data.train), ("data.val", config.data.val)):
        if not value:
            raise UserError(f"configuration: {key} is missing; give it in the file or as --{key} FOLDER")
    return config


def is_on_command_line(option: str, argv: Sequence[str]) -> bool:
    """Whether a command line itself, and not a file that it names, says the value of an option."""
    return _gather(argv)[1].get(option) == _COMMAND_LINE


def help_text(argv: Sequence[str]) -> str:
    """Every option with its meaning and default, for the chosen model and method."""
    values, origin = _gather(argv)
    parser = ArgumentParser(
        prog="mivolo-lite train",
        usage="mivolo-lite train --config FILE [--key.of.option VALUE ...]",
        formatter_class=TypesInWords,
    )
    parser.add_argument("--config", type=str, help=f"YAML file, or {PREFIX}NAME: {', '.join(package_configs())}")
    parser.add_argument("--run", type=str, default="", help="folder of the run, as in runs/first")
    parser.add_argument("--resume", type=str, default="no", help="`auto` resumes the run in the folder, if any")
    parser.add_argument("--init-from", type=str, default="", help="checkpoint with all weights of a new run")
    parser.add_argument("--tasks", type=list[Task], default=[], help="what is learnt in addition to age and gender")
    for name, group in _schema(values, origin).items():
        if is_dataclass(group):
            parser.add_class_arguments(checked_options(group), name)
    for action in parser._actions:  # what jsonargparse would take, and `_override` does not
        action.option_strings = [option for option in action.option_strings if not option.endswith("+")]
        if action.dest in SECTIONS:
            describe_section(action, or_name=action.dest in _NAMED)
        elif action.dest.endswith(".help"):
            action.help = SUPPRESS
    return parser.format_help()


def _gather(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested values of files and overrides, later ones winning, and where each dotted key comes from."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for layer, source in _layers(argv):
        _merge(values, layer)
        origin.update((dotted, source) for dotted in _dotted(layer))
    return values, origin


def _layers(argv: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Files, and the options between them, each with where it stood. Options are one layer, so that it does not matter
    whether ``--model`` or ``--model.backbone`` comes first."""
    for is_file, options in groupby(_options(argv), lambda option: option[0] == "config"):
        if is_file:
            for _, path in options:
                for layer, source in _read_files(_config_path(path, "--config")):
                    yield _sections(layer, source), source
        else:
            overrides: dict[str, Any] = {}
            for key, value in options:
                _merge(overrides, _sections(_override(key, value), _COMMAND_LINE))
            yield overrides, _COMMAND_LINE


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    arguments = iter(argv)
    for argument in arguments:
        if argument in ("-h", "--help"):
            continue
        if not argument.startswith("--"):
            raise UserError(f"command line: {argument!r} is not an option; write --key value, as in --optim.lr 3e-4")
        key, equals, value = argument[2:].partition("=")
        text = value if equals else next(arguments, None)
        if text is None:
            raise UserError(f"command line: --{key} has no value")
        if key.count(".") > _MOST_DOTS:
            raise UserError(f"command line: --{key:.40}... is not an option; no key has so many dots")
        yield key.replace("-", "_"), text


def _override(key: str, text: str) -> dict[str, Any]:
    """An option of the command line as nested values. A section, or a list, may be given as YAML."""
    listed = key in [f"data.{name}" for name in _DATA_SETS] and text.lstrip().startswith(("[", "{"))
    is_yaml = listed or key == "tasks" or key in SECTIONS or key.startswith("optim.options")
    value = parse_yaml(text, f"command line: --{key}") if is_yaml else text
    *groups, option = key.split(".")
    values = {option: value}
    for group in reversed(groups):
        values = {group: values}
    return values


def _config_path(text: str, option: str, folder: Path = Path()) -> Path:
    """The path of a file, relative to a folder, or of a configuration of the package."""
    if text.startswith(PREFIX):
        return package_config(text.removeprefix(PREFIX), option)
    return folder / expand_path(text, option)


def _read_files(path: Path, readers: tuple[Path, ...] = ()) -> Iterator[tuple[dict[str, Any], str]]:
    """A file's values, after those of the files that its ``base`` names, relative to it; each with where it
    stood."""
    layer = read_yaml_file(path, f"{readers[-1]}: base" if readers else "--config")
    base = layer.pop("base", None)
    base = [] if base is None else base
    readers = (*readers, path.absolute())
    for name in base if isinstance(base, list) else [base]:
        if not isinstance(name, str):
            raise UserError(f"{path}: base: {name!r:.60} is not a file; name one, which may have a base of its own")
        base_path = _config_path(name, f"{path}: base", path.parent)
        if os.path.realpath(base_path) in map(os.path.realpath, readers):
            raise UserError(f"{path}: base: {name} has this file as its own base")
        yield from _read_files(base_path, readers)
    yield layer, str(path)


def _sections(layer: dict[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """The layer without sections that hold nothing, and with ``method: coral`` as ``method: {name: coral}``.

    Raises:
        UserError: a section that holds something else than options.
    """
    normalised = {}
    for key, value in layer.items():
        dotted = prefix + key
        if not prefix:
            key = dotted = current_key(key, source)
        if value is None and (dotted in SECTIONS or dotted == "tasks"):  # all its lines are comments
            continue
        if dotted in REGISTRIES and isinstance(value, str):
            value = {"name": value}
        if dotted == "data.augment" and isinstance(value, str):
            value = _augmentation(value, source)
        if dotted in SECTIONS:
            if not isinstance(value, dict):
                raise UserError(f"{source}: {dotted} must hold options, as in `{key}: {{option: value}}`")
            value = _sections(value, source, f"{dotted}.")
        normalised[key] = value
    return normalised


def _augmentation(name: str, source: str) -> dict[str, Any]:
    """The options of a preset, which options that are stated later change."""
    if name not in PRESETS:
        raise UserError(f"{source}: data.augment: {name!r:.60} is no preset{_suggest(name, PRESETS)}")
    return asdict(PRESETS[name])


def _merge(into: dict[str, Any], layer: dict[str, Any], section: str = "") -> None:
    # Another model, method, optimizer or data set brings its own options: those of the one it replaces mean nothing
    # to it.
    if _is_another("name", into, layer):
        replaced = into if section in REGISTRIES else into.get("options")
        if isinstance(replaced, dict):
            replaced.clear()
    if section in _DATA_SETS and _is_another("path", into, layer):
        into.clear()
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, key)
        else:
            into[key] = deepcopy(value)  # a reference in YAML gives two places the same object


def _is_another(key: str, into: dict[str, Any], layer: dict[str, Any]) -> bool:
    return key in layer and layer[key] != into.get(key, layer[key])


def _with_checkpoint(values: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    """The values on top of those of the checkpoint that ``init_from`` names; ``origin`` says which are the latter."""
    address = values.get("init_from")
    if not isinstance(address, str) or not address:
        return values
    merged = _checkpoint_values(_checkpoint_path(address, f"{_source_of('init_from', origin)}: init_from"), values)
    for key in _dotted(merged):
        origin.setdefault(key, address)
    _merge(merged, values)
    return merged


def _checkpoint_values(address: str, values: dict[str, Any]) -> dict[str, Any]:
    """Model, method, ages and image size of a checkpoint; of a run that resumes those of its own configuration."""
    run = RunFolder(local_path(str(values.get("run", "")), "run"))
    # By now ``init_from`` may be gone. A start that saved nothing is not resumed, and may have been from another one.
    if values.get("resume") == "auto" and finished_checkpoints(run.checkpoints) and run.config.is_file():
        config = read_yaml_file(run.config, "--run")
        data = config.get("data")
        sections = {key: config[key] for key in ("model", "method", "ages") if isinstance(config.get(key), dict)}
        return sections | (
            {"data": {"image_size": data["image_size"]}} if isinstance(data, dict) and "image_size" in data else {}
        )
    if not (address == DEFAULT or is_hub_address(address) or os.path.isdir(address)):  # the trainer reports it
        return {}
    card = Card.load(locate(address)).from_nothing()
    if card.model["name"] == "ensemble":
        raise UserError(f"{address}: is an ensemble, which does not learn; start from a member, or make it a teacher")
    sections = {"model": card.model, "method": card.method, "ages": card.span, "data": {"image_size": card.image_size}}
    return deepcopy(sections)


def _checkpoint_path(address: str, option: str) -> str:
    return address if is_hub_address(address) else local_path(address, option)


def _dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def _schema(values: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    """The types of a run's options by their keys, with those of the chosen model and method."""
    chosen = {kind: _named_config(kind, registry, values, origin) for kind, registry in REGISTRIES.items()}
    return {option.name: option.type for option in fields(RunConfig)} | chosen


def _named_config(kind: str, registry: dict[str, Any], values: dict[str, Any], origin: dict[str, str]) -> type:
    name = values.get(kind, {}).get("name") or DEFAULT_NAMES[kind]
    if not isinstance(name, str) or name not in registry:
        raise UserError(
            f"{_source_of(f'{kind}.name', origin)}: {kind} {name!r:.80} is not known{_suggest(name, registry)}"
        )
    return _config_of(registry[name], kind, name, tuple(registry))


@cache
def _config_of(cls: Any, kind: str, name: str, names: Sequence[str]) -> type:
    """The options of a model or a method, with its name. Raises UserError where it does not keep to its interface."""
    require_interface(kind, name, cls, INTERFACES[kind])
    config = cls.Config
    named = make_dataclass(
        config.__name__,
        [("name", str, field(default=name))],
        bases=(config,),
        frozen=config.__dataclass_params__.frozen,
    )
    named.__doc__ = f"{_documentation(config)}    name: one of {', '.join(names)}."
    return named


def _documentation(config: type) -> str:
    """Its docstring with the attributes that it inherits: help is of the docstring of the class alone."""
    docstrings = [cleandoc(base.__doc__ or "").partition("Attributes:\n") for base in config.__mro__[:-1]]
    summary, *_ = docstrings[0]
    return f"{summary.rstrip()}\n\nAttributes:\n" + "".join(
        f"{attributes}\n" for *_, attributes in docstrings if attributes
    )


def _check_keys(values: dict[str, Any], schema: dict[str, Any], origin: dict[str, str]) -> None:
    for key in _unknown_keys(values, schema, ""):
        source, options = _source_of(key, origin), list(_all_keys(schema, ""))
        group, _, option = key.partition(".")
        if key in options:  # a dot within one key of a file
            raise UserError(
                f"{source}: {key}: dots are for the command line; in a file, write `{group}: {{{option}: ...}}`"
            )
        raise UserError(f"{source}: {key:.80} is not an option{_of_named(group, values)}{_suggest(key, options)}")


def _of_named(group: str, values: dict[str, Any]) -> str:
    """`` of coral`` where the group is a model or a method, which have options of their own."""
    return f" of {values[group].get('name') or DEFAULT_NAMES[group]}" if group in REGISTRIES else ""


def _unknown_keys(values: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if key not in schema:
            yield f"{prefix}{key}"
        elif is_dataclass(schema[key]):
            yield from _unknown_keys(value, _types(schema[key]), f"{prefix}{key}.")


def _all_keys(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, kind in schema.items():
        if is_dataclass(kind):
            yield from _all_keys(_types(kind), f"{prefix}{key}.")
        else:
            yield prefix + key


def _types(group: Any) -> dict[str, Any]:
    return {option.name: option.type for option in fields(group)}


_ELSEWHERE = {"learning_rate": "lr", "batch_size": "global_batch", "num_epochs": "epochs", "num_workers": "workers"}
"""What other trainers call an option, and its name here."""


def _suggest(word: Any, choices: Iterable[str]) -> str:
    names = list(choices)
    group, _, last = str(word).rpartition(".")
    # the right option in the wrong group is a common slip
    namesake = next((name for name in names if name.rpartition(".")[2] == _ELSEWHERE.get(last, last)), None)
    elsewhere = f"did you mean {namesake}?" if namesake else ""
    if namesake and last in _ELSEWHERE:
        return f"; {elsewhere}"
    of_group = [name for name in names if group and name.rpartition(".")[0] == group]
    return did_you_mean(str(word), of_group or names, elsewhere or f"there are {', '.join(of_group or names)}")


def _build(kind: Any, value: Any, key: str, origin: dict[str, str]) -> Any:
    """The value of an option, or of all options of a section, with an error that names the file and the key."""
    try:
        if is_dataclass(kind):
            types = _types(kind)
            options = {name: _build(types[name], option, f"{key}.{name}", origin) for name, option in value.items()}
            return _checked(kind, **options)
        if kind == list[Task] and isinstance(value, list):
            tasks = [_task(entry, f"{key}[{index}]", origin) for index, entry in enumerate(value)]
            return _checked(check_tasks, tasks)
        if kind == list[DataSetConfig] | str and isinstance(value, list | dict):
            return DataSetConfig.read_list(value)
        if kind == DataSetConfig | str and isinstance(value, dict):
            return DataSetConfig.read(value)
        return check_value(kind, value)
    except ValueError as error:
        named = str(error).partition(":")[0]  # of a section's own checks, the option
        source = f"{origin[named]}" if named in origin else f"{_source_of(key, origin)}: {key}"
        raise UserError(f"{source}: {error}") from None


def _task(entry: Any, key: str, origin: dict[str, str]) -> Task:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.60} is not a task; give {{name: NAME, option: value}}")
    types = _types(Task)
    for option in entry:
        if option not in types:
            raise ValueError(f"{option!r:.60} is not an option of a task{_suggest(option, types)}")
    if "name" not in entry:
        raise ValueError("a task has no name; give {name: NAME, option: value}")
    return _build(Task, entry, key, origin)


def _checked(make: Any, *arguments: Any, **options: Any) -> Any:
    """The object that several options make. Raises ValueError where they contradict each other."""
    try:
        return make(*arguments, **options)
    except UserError as error:
        raise ValueError(*error.args) from None


def _expand_paths(config: RunConfig, origin: dict[str, str]) -> None:
    """Replace ``~`` and ``$VARIABLES`` in paths. Raises UserError for a URL where only a disk will do."""

    def expand(holder: Any, option: str, key: str, how: Callable[[str, str], str]) -> None:
        value = getattr(holder, option)
        if isinstance(value, str) and value:
            object.__setattr__(holder, option, how(value, f"{_source_of(key, origin)}: {key}"))

    expand(config, "run", "run", local_path)
    expand(config, "init_from", "init_from", _checkpoint_path)
    where = f"{_source_of('optim.teachers', origin)}: optim.teachers"
    config.optim.teachers = [_checkpoint_path(folder, where) for folder in config.optim.teachers]
    expand(config.data.cache, "folder", "data.cache.folder", local_path)
    data_sets = config.data.train_sets if isinstance(config.data.train, list) else []
    for holder, option, key in [
        (config.data, "train", "data.train"),
        (config.data, "val", "data.val"),
        (config.data, "exclude", "data.exclude"),
        *((data_set, "path", "data.train") for data_set in data_sets),
        *((data_set, "path", "data.val") for data_set in [config.data.val] if isinstance(data_set, DataSetConfig)),
    ]:
        expand(holder, option, key, expand_path)
    for option in _types(type(config.model)):
        if option.endswith("weights"):
            expand(config.model, option, f"model.{option}", local_path)


def _source_of(key: str, origin: dict[str, str]) -> str:
    return origin.get(key.partition("[")[0], "configuration")
