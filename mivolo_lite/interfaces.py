"""Checks of the classes in a registry, to which users add their own: ``docs/adding.md``."""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from mivolo_lite.errors import UserError


def require_interface(kind: str, name: str, cls: Any, base: type) -> None:
    """Raise UserError if a class of a registry does not implement its interface.

    Args:
        kind: of the registry's classes.
        name: of the class in the registry.
        cls: the class.
        base: the interface. ``required``, in it and in classes between, names the required attributes.
    """
    for fault in _faults(cls, base):
        raise interface_error(f"{kind} {name}: {getattr(cls, '__name__', cls)} {fault}")


def interface_error(fault: str) -> UserError:
    """The error for a class that violates its interface, with the page that explains it."""
    return UserError(f"{fault}; docs/adding.md shows how")


def _faults(cls: Any, base: Any) -> Iterator[str]:
    if not (isinstance(cls, type) and issubclass(cls, base)):
        yield f"is no subclass of {base.__name__}"
        return
    for name in dict.fromkeys(name for parent in cls.__mro__ for name in vars(parent).get("required", ())):
        if _is_missing(cls, name):
            yield f"has no {name}"
    if "Config" in base.__annotations__:
        yield from _config_faults(getattr(cls, "Config", None))
    for name, function in vars(base).items():
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield from _signature_faults(name, function, getattr(cls, name))


def _is_missing(cls: type, name: str) -> bool:
    """Whether a class lacks an attribute, or has only the interface's, which raises an error."""
    owner = next((parent for parent in cls.__mro__ if name in vars(parent)), None)
    return owner is None or name in vars(owner).get("required", ())


def _config_faults(config: Any) -> Iterator[str]:
    if not (isinstance(config, type) and is_dataclass(config)):
        yield "has no nested dataclass Config of its options"
        return
    for option in fields(config):
        if option.default is MISSING and option.default_factory is MISSING:
            yield f"has an option without a default, Config.{option.name}"


def _signature_faults(name: str, asked: Any, given: Any) -> Iterator[str]:
    """Functions whose parameters differ from the interface's."""
    parameters = list(inspect.signature(asked).parameters)
    try:
        inspect.signature(given).bind(*parameters)
    except TypeError as error:
        yield f"has a {name} that does not take ({', '.join(parameters)}): {error}"
