"""What README.md and docs/*.md hold: code blocks, the commands in them, and links."""

import re
import shlex
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")  # of an environment variable, before the command
_LINE = re.compile(r"(?:\\\n|[^\n])+")  # to the first end that no backslash precedes
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A code block: its page's path, the line where it begins, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    """All code blocks of one language, in the order of the pages."""
    return [
        Block(str(page.relative_to(REPOSITORY)), page.read_text().count("\n", 0, match.start()) + 2, *match.groups())
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text())
        if match[1] == language
    ]


def commands() -> dict[str, list[str]]:
    """The words of every command of the bash blocks, each once, by the page and line where it stands first."""
    found: dict[tuple, str] = {}
    for block in blocks("bash"):
        for line in _LINE.finditer(block.text):
            words = shlex.split(line[0].replace("\\\n", " "), comments=True)
            if words := tuple(dropwhile(_ASSIGNMENT.match, words)):
                number = block.line + block.text.count("\n", 0, line.start())
                found.setdefault(words, f"{block.page}:{number}")
    return {name: list(words) for words, name in found.items()}


def links(page: Path) -> list[str]:
    """Paths that a page's links lead to, relative to the page; no addresses of the web."""
    targets = [link.partition("#")[0] for link in _LINK.findall(page.read_text()) if "://" not in link]
    return [target for target in targets if target]
