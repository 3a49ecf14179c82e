"""Reads YAML configurations: one mapping of plain values with unique keys.

PyYAML alone takes the last of two equal keys, reads ``no`` as a boolean and 070 as 56, and expands references without a
bound.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mivolo_lite.errors import UserError
from mivolo_lite.files import read_file

MOST_BYTES, MOST_VALUES, MOST_LEVELS = 1_000_000, 50_000, 50
"""Limits of a file: its bytes, and its values and their levels once references (``*name``, ``<<``) are expanded."""

_TEXT, _MERGE, _BOOL, _DATE, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "merge", "bool", "timestamp", "int", "float")
)
_OF_YAML_1_1 = re.compile(r"[-+]?0[0-7_]+$|.*:")
"""Numbers of base 8 and 60, such as 070 and 1:30."""


class _Refused(yaml.YAMLError):
    """Valid YAML that is not allowed in a configuration."""

    def __init__(self, problem: str, mark: Any):  # of PyYAML or of libyaml
        super().__init__(f"line {mark.line + 1}: {problem}")


class _Loader(yaml.SafeLoader):
    """Plain values, with YAML 1.2's booleans and numbers: ``no``, ``off``, dates, 070 and 1:30 are text, for options to
    read as they need, and as they read it on the command line."""

    yaml_implicit_resolvers = {
        start: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE and (tag != _BOOL or start in "tTfF")]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self.values = self.levels = 0

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return _TEXT if tag in (_INT, _FLOAT) and _OF_YAML_1_1.match(value) else tag

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Stop at the limits of levels and values, since composing is recursive."""
        is_level = self.check_event(yaml.CollectionStartEvent)
        self.levels += is_level
        self.values += 1
        if self.levels > MOST_LEVELS:
            raise _Refused(f"more than {MOST_LEVELS} levels of nesting", self.peek_event().start_mark)
        if self.values > MOST_VALUES:
            raise _Refused(f"more than {MOST_VALUES} values", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.levels -= is_level
        return node


def read_yaml_file(path: Path, option: str) -> dict[str, Any]:
    """The keys and values of a file; nothing for an empty one.

    Raises:
        UserError: no regular file, too large, no UTF-8, no YAML, no mapping, or a repeated key.
    """
    try:
        content = read_file(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"{option} {error}") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{option} {path}: over {MOST_BYTES // 1000} kB, so it is no configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line}: not UTF-8 text; save the file as UTF-8") from None
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold keys and values, as in `run: runs/first`")
    return values


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text. Raises UserError, which begins with ``source``, as ``read_yaml_file`` does."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_nodes(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: for a date such as 2026-13-45
        raise UserError(f"{source}: {_reason(error)}") from None


def _check_nodes(root: Node) -> None:
    """Check keys, and the number of values with expanded references: nine lines of references can have 10^9 values."""
    sizes: dict[int, int | None] = {}  # each node once; None while its count is computed

    def size(node: Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = None
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
        count = sizes[id(node)]
        if count is None:
            raise _Refused("a reference to what it stands in", node.start_mark)
        if count > MOST_VALUES:
            raise _Refused(f"more than {MOST_VALUES} values once references are expanded", node.start_mark)
        return count

    size(root)


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        _check_keys(node)
        yield from (value for _, value in node.value)
    elif isinstance(node, SequenceNode):
        yield from node.value
    elif any("\ud800" <= character <= "\udfff" for character in node.value):  # "\ud800" in quotes
        raise _Refused("half a character, a lone surrogate", node.start_mark)


def _check_keys(node: MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode) or key.tag not in (_TEXT, _MERGE):
            raise _Refused("a key must be text; write it in quotes", key.start_mark)
        if key.value in lines:
            raise _Refused(f"{key.value} is there twice, first in line {lines[key.value]}; keep one", key.start_mark)
        lines[key.value] = key.start_mark.line + 1


def _reason(error: Exception) -> str:
    """The problem in one line, with its position if PyYAML has one."""
    if isinstance(error, _Refused):
        return str(error)
    mark = getattr(error, "problem_mark", None)
    line = f" in line {mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or str(error)
    return f"not YAML{line}: {' '.join(problem.split())}"
