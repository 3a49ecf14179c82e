"""Pages that the site makes of other files: the API reference of every room, and the measurements of benchmarks/."""

import ast
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[1]
PACKAGE, RESULTS = REPOSITORY / "mivolo_lite", REPOSITORY / "benchmarks" / "results"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages in the navigation."""
    config.nav.append({"Measurements": [{path.stem: f"results/{path.name}"} for path in sorted(RESULTS.glob("*.md"))]})
    config.nav.append({"API reference": [{name(room): f"api/{name(room)}.md"} for room in rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for room in rooms():
        files.append(File.generated(config, f"api/{name(room)}.md", content=api_page(room)))
    for path in sorted(RESULTS.glob("*.md")):
        files.append(File.generated(config, f"results/{path.name}", content=path.read_text()))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Links to the measurements, and from them, lead to pages here. As they stand they work in the repository."""
    return markdown.replace("](../benchmarks/results/", "](results/").replace("](../../docs/", "](../")


def rooms() -> Iterator[Path]:
    """The package itself, for the modules that lie in no room, then its subpackages with those inside them."""
    yield PACKAGE
    yield from sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def name(room: Path) -> str:
    """As in ``evaluation.calibration``."""
    return _dotted(room).removeprefix(f"{PACKAGE.name}.")


def api_page(room: Path) -> str:
    """Everything public of a room's modules that has a docstring."""
    about = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    modules = [_dotted(path) for path in sorted(room.glob("*.py")) if not path.name.startswith("_")]
    return "\n\n".join([f"# `{_dotted(room)}`", about, *(f"::: {module}" for module in modules)])


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
