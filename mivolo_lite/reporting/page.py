"""A page that needs no network, in light and dark, for phones and desks: its look and its elements."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #5d6670; --card: #f4f6f8; --line: #d8dde3; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --ink: #e6e9ec; --faint: #9aa4ae; --card: #1e2328; --line: #343b43; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; } h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; } .faint, figcaption, small { color: var(--faint); } nav a { margin-right: 1rem; color: inherit; }
.tiles, .plots, .faces { display: grid; gap: .8rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin: 1rem 0; }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.small { margin-bottom: .8rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.faces { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
.tile, figure { margin: 0; padding: .7rem; background: var(--card); border-radius: .5rem; min-width: 0; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; } .tile small { display: block; line-height: 1.35; }
figcaption { font-size: .85rem; } .plots figcaption { margin-bottom: .3rem; color: var(--ink); font-weight: 600; }
figure svg { display: block; width: 100%; height: auto; } .faces img, .faces .none { display: block; width: 100%;
  aspect-ratio: 1; object-fit: contain; border-radius: .3rem; background: var(--line); }
.strips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); margin-top: .8rem; }
.strip { display: grid; gap: .3rem; grid-template-columns: repeat(3, 1fr); }
.sheets { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
.sheets section { min-width: 0; } .tables { overflow-x: auto; margin-bottom: .6rem; } 
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .2rem .6rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; } td small { margin-left: .3rem; }
.shade { padding: .3rem .6rem; border-radius: .3rem; } .shade a { color: inherit; }
.shade small { display: block; margin: 0; }
@media (max-width: 40rem) { td small { display: block; margin: 0; line-height: 1.1; } }
"""


def page(title: str, about: Iterable[str], body: Iterable[str]) -> str:
    """A whole HTML file.

    Args:
        title: its heading.
        about: facts to show below that, as words.
        body: its elements.
    """
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>',
        f"<h1>{title}</h1>",
        faint("; ".join(map(escape, about))),
    )
    return "\n".join([*head, *body, "</body>\n</html>\n"])


def tile(label: str, number: str, small: str) -> str:
    return f'<div class="tile"><small>{label}</small><b>{number}</b><small>{small}</small></div>'


def faint(words: str) -> str:
    return f'<p class="faint">{words}</p>'


def div(kind: str, parts: Iterable[str]) -> str:
    return f'<div class="{kind}">{"".join(parts)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return div("tables", [f"<table><tr>{titles}</tr>{lines}</table>"])


def figure(value: float | None, interval: Sequence[float] | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}<small>{between(interval, form)}</small>"


def between(interval: Sequence[float] | None, form: str = ".2f") -> str:
    return f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
