"""The options of a run: those of its sections, and of the chosen model and method."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import cache
from inspect import cleandoc
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.interfaces import require_interface
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeMethod
from mivolo_lite.models import MODELS
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.training.run_config import RunConfig
from mivolo_lite.wording import did_you_mean

REGISTRIES: dict[str, dict[str, Any]] = {"model": MODELS, "method": METHODS}
INTERFACES: dict[str, type] = {"model": AgeModel, "method": AgeMethod}
DEFAULT_NAMES = {"model": "single", "method": "classification"}
_ELSEWHERE = {"learning_rate": "lr", "batch_size": "global_batch", "num_epochs": "epochs", "num_workers": "workers"}
"""Names of options in other trainers, with their names here."""


def _section_names(group: Any, prefix: str = "") -> Iterator[str]:
    for option in fields(group):
        if is_dataclass(option.type):
            yield prefix + option.name
            yield from _section_names(option.type, f"{prefix}{option.name}.")


SECTIONS = {*REGISTRIES, *_section_names(RunConfig)}
"""Keys that hold options."""


def schema_of(values: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    """The types of a run's options by their keys, with those of the chosen model and method."""
    chosen = {kind: _named_config(kind, registry, values, origin) for kind, registry in REGISTRIES.items()}
    return {option.name: option.type for option in fields(RunConfig)} | chosen


def _named_config(kind: str, registry: dict[str, Any], values: dict[str, Any], origin: dict[str, str]) -> type:
    name = values.get(kind, {}).get("name") or DEFAULT_NAMES[kind]
    if not isinstance(name, str) or name not in registry:
        raise UserError(
            f"{source_of(f'{kind}.name', origin)}: {kind} {name!r:.80} is not known{suggest(name, registry)}"
        )
    return _config_of(registry[name], kind, name, tuple(registry))


@cache
def _config_of(cls: Any, kind: str, name: str, names: Sequence[str]) -> type:
    """The options of a model or a method, with its name. Raises UserError if it lacks the interface."""
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
    """Its docstring with the inherited attributes, since help uses only the docstring of the class itself."""
    docstrings = [cleandoc(base.__doc__ or "").partition("Attributes:\n") for base in config.__mro__[:-1]]
    summary, *_ = docstrings[0]
    return f"{summary.rstrip()}\n\nAttributes:\n" + "".join(
        f"{attributes}\n" for *_, attributes in docstrings if attributes
    )


def check_keys(values: dict[str, Any], schema: dict[str, Any], origin: dict[str, str]) -> None:
    """Raise UserError for an unknown key, with the most similar one."""
    for key in _unknown_keys(values, schema, ""):
        source, options = source_of(key, origin), list(_all_keys(schema, ""))
        group, _, option = key.partition(".")
        if key in options:  # a key of a file may contain a dot
            raise UserError(
                f"{source}: {key}: dots are for the command line; in a file, write `{group}: {{{option}: ...}}`"
            )
        raise UserError(f"{source}: {key:.80} is not an option{_of_named(group, values)}{suggest(key, options)}")


def _of_named(group: str, values: dict[str, Any]) -> str:
    """`` of coral`` if the group is a model or a method, which have options of their own."""
    return f" of {values[group].get('name') or DEFAULT_NAMES[group]}" if group in REGISTRIES else ""


def _unknown_keys(values: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if key not in schema:
            yield f"{prefix}{key}"
        elif is_dataclass(schema[key]):
            yield from _unknown_keys(value, types_of(schema[key]), f"{prefix}{key}.")


def _all_keys(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, kind in schema.items():
        if is_dataclass(kind):
            yield from _all_keys(types_of(kind), f"{prefix}{key}.")
        else:
            yield prefix + key


def types_of(group: Any) -> dict[str, Any]:
    """The types of a section's options by their names."""
    return {option.name: option.type for option in fields(group)}


def suggest(word: Any, choices: Iterable[str]) -> str:
    """The end of an error about an unknown name: the most similar one, or all of them."""
    names = list(choices)
    group, _, last = str(word).rpartition(".")
    # the right option in the wrong group is a common mistake
    namesake = next((name for name in names if name.rpartition(".")[2] == _ELSEWHERE.get(last, last)), None)
    elsewhere = f"did you mean {namesake}?" if namesake else ""
    if namesake and last in _ELSEWHERE:
        return f"; {elsewhere}"
    siblings = [name for name in names if group and name.rpartition(".")[0] == group]
    return did_you_mean(str(word), siblings or names, elsewhere or f"there are {', '.join(siblings or names)}")


def source_of(key: str, origin: dict[str, str]) -> str:
    """The source of a key: a file, or the command line."""
    return origin.get(key.partition("[")[0], "configuration")
