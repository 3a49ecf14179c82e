"""The values of a run in layers: configuration files, each after its base, and the command line."""

import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from mivolo_lite.config.schema import REGISTRIES, SECTIONS, suggest
from mivolo_lite.errors import UserError
from mivolo_lite.loading.transforms import PRESETS
from mivolo_lite.old_names import current_key
from mivolo_lite.package_files import PREFIX, package_config
from mivolo_lite.paths import expand_path
from mivolo_lite.yaml_file import parse_yaml, read_yaml_file

COMMAND_LINE = "command line"
_MOST_DOTS = 10
_DATA_SETS = ("train", "val")
"""Options of ``data`` that may be a mapping."""


def gather(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested values of files and overrides, of which later ones win, and the source of each dotted key."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for layer, source in _layers(argv):
        merge(values, layer)
        origin.update((dotted, source) for dotted in dotted_keys(layer))
    return values, origin


def _layers(argv: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Files, and the options between them, each with its source. Consecutive options are one layer, so the order of
    ``--model`` and ``--model.backbone`` does not matter."""
    for is_file, options in groupby(_options(argv), lambda option: option[0] == "config"):
        if is_file:
            for _, path in options:
                for layer, source in _read_files(_config_path(path, "--config")):
                    yield _sections(layer, source), source
        else:
            overrides: dict[str, Any] = {}
            for key, value in options:
                merge(overrides, _sections(_override(key, value), COMMAND_LINE))
            yield overrides, COMMAND_LINE


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
    """An option of the command line as nested values. Sections and lists may be given as YAML."""
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
    """The values of a file's ``base`` files, relative to it, and then its own; each with its source."""
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
    """The layer without empty sections, and with ``method: coral`` as ``method: {name: coral}``.

    Raises:
        UserError: a section does not hold options.
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
    """The options of a preset, which later options may change."""
    if name not in PRESETS:
        raise UserError(f"{source}: data.augment: {name!r:.60} is no preset{suggest(name, PRESETS)}")
    return asdict(PRESETS[name])


def merge(into: dict[str, Any], layer: dict[str, Any], section: str = "") -> None:
    """Merge a layer's values into those of the layers below it."""
    # Another model, method, optimizer or data set has its own options; those of the one it replaces do not apply.
    if _is_another("name", into, layer):
        replaced = into if section in REGISTRIES else into.get("options")
        if isinstance(replaced, dict):
            replaced.clear()
    if section in _DATA_SETS and _is_another("path", into, layer):
        into.clear()
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value, key)
        else:
            into[key] = deepcopy(value)  # a YAML reference puts the same object in two places


def _is_another(key: str, into: dict[str, Any], layer: dict[str, Any]) -> bool:
    return key in layer and layer[key] != into.get(key, layer[key])


def dotted_keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of nested values, including sections, such as ``optim`` and ``optim.lr``."""
    for key, value in values.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from dotted_keys(value, f"{prefix}{key}.")
