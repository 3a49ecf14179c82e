"""Which room of the package may import which: the arrows point down."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mivolo_lite"

SMALL = {
    "batch_labels", "connected", "credentials", "csv_file", "device", "errors", "files", "hub", "interfaces", "labels",
    "old_names", "option_help", "option_values", "output", "package_files", "paths", "process_pool", "processes",
    "randomness", "ranges", "system", "wording", "yaml_file",
}  # fmt: skip
"""Modules at the bottom that every room may use; among themselves they are ordered as well."""

ALLOWED = {
    "images": set(),
    "shards": {"images"},
    "packing": {"images", "shards"},
    "audit": {"images", "reporting", "shards"},
    "models": {"images"},
    "methods": set(),
    "cosface": set(),
    "tasks": {"cosface", "models"},
    "card": set(),
    "lineage": {"card", "shards"},
    "estimator": {"card", "images", "methods", "models", "tasks"},
    "card_changes": {"card", "estimator", "methods", "tasks"},
    "convert": {"card", "card_changes", "estimator", "lineage", "methods", "models", "shards", "tasks"},
    "distributed": {"estimator", "images"},
    "loading": {"distributed", "images", "shards"},
    "reporting": set(),
    "evaluation": {
        "card", "distributed", "estimator", "images", "lineage", "loading", "methods", "reporting", "shards", "tasks",
    },
    "training": {
        "card", "card_changes", "distributed", "estimator", "evaluation", "images", "lineage", "loading", "methods",
        "models", "shards", "tasks",
    },
    "config": {"card", "loading", "methods", "models", "tasks", "training"},
    "experiments": {
        "card", "config", "distributed", "evaluation", "lineage", "loading", "reporting", "shards", "training",
    },
    "inference": {
        "audit", "card", "convert", "estimator", "evaluation", "images", "methods", "models", "packing", "reporting",
        "shards", "tasks",
    },
    "__init__": {"inference"},
    "cli": {
        "audit", "card", "config", "convert", "distributed", "evaluation", "experiments", "inference", "packing",
        "reporting", "shards", "training",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""What each room imports of the others. A new arrow needs a reason; one that points up needs another design."""


def modules_imported(source: str):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def arrows() -> dict[tuple[str, str], list[str]]:
    """The files behind every import from one room of another."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for module in modules_imported(path.read_text()):
            pair = room_of(path), module.split(".")[1]
            if pair[0] != pair[1] and pair[1] != "__version__":
                found.setdefault(pair, []).append(f"{path.relative_to(PACKAGE)} imports {module}")
    return found


def test_no_room_imports_what_it_may_not():
    wrong = [
        line
        for (room, other), lines in arrows().items()
        if room not in SMALL and other not in SMALL | ALLOWED[room]
        for line in lines
    ]
    assert wrong == []


def test_every_allowed_arrow_is_there():
    found = {pair for pair in arrows() if pair[0] not in SMALL and pair[1] not in SMALL}
    assert found == {(room, other) for room, others in ALLOWED.items() for other in others}


def test_no_arrows_make_a_circle():
    graph = {}
    for room, other in arrows():
        graph.setdefault(room, set()).add(other)
    TopologicalSorter(graph).prepare()
