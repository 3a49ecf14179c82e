"""Checks of options that a type cannot express."""

from typing import Any

from mivolo_lite.errors import UserError


def require_positive(config: Any, *names: str) -> None:
    """Raise UserError unless each of the named options is above zero."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{name}={getattr(config, name)}: give a number above 0")
