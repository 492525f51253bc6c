"""The report: tables, plots and pictures in one HTML file that needs nothing beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from imos.evaluation.pictures import OURS, TRUE, Shown
from imos.evaluation.plots import Plot
from imos.evaluation.tables import Table
from imos.propagation.sheet import PAINTED, Colour

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2rem auto; padding: 0 1.2rem;
  color: light-dark(#1b1e24, #e8eaee); background: light-dark(#ffffff, #14171b); }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; } h3 { margin: 1.6rem 0 .4rem; }
p.about { color: light-dark(#5a6270, #9aa2ae); margin-top: 0; }
nav a { margin-right: 1.1rem; }
a { color: light-dark(#1763b6, #7db7f5); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .3rem 0 1.2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { padding: .18rem .8rem .18rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid light-dark(#e3e6ea, #2b3037); }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { font-weight: 600; }
img { max-width: 100%; height: auto; border-radius: 4px; }
img.plot { background: white; }
figure { margin: 0 0 1.4rem; } figcaption { margin-bottom: .3rem; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .35em 0 .9em; }
"""


def report(
    title: str, about: Sequence[str], tables: Iterable[Table], plots: Iterable[Plot], pictures: Iterable[Shown]
) -> str:
    """One HTML page.

    Args:
        title: Its heading.
        about: What was judged, in short phrases.
        tables: In their order.
        plots: In their order.
        pictures: In their order; those of one group follow each other.
    """
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
    )
    parts = [head, f"<h1>{escape(title)}</h1>\n", f'<p class="about">{escape("; ".join((*about, when)))}</p>\n']
    sections = {
        "Plots": "".join(_plot(plot) for plot in plots),
        "Pictures": _pictures(pictures),
        "Tables": "".join(_table(table) for table in tables),
    }
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name, body in sections.items() if body)
    parts.append(f"<nav>{links}</nav>\n")
    parts += [f'<h2 id="{name.lower()}">{name}</h2>\n{body}' for name, body in sections.items() if body]
    return "".join((*parts, "</body>\n</html>\n"))


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>\n" for line in table.lines)
    title = escape(table.title[0].upper() + table.title[1:])
    return f'<div class="wide"><table><caption>{title}</caption>\n<tr>{header}</tr>\n{lines}</table></div>\n'


def _plot(plot: Plot) -> str:
    return f"<figure><figcaption>{escape(plot.title)}</figcaption>{_image(plot.png, plot.title, 'plot')}</figure>\n"


def _pictures(pictures: Iterable[Shown]) -> str:
    parts: list[str] = []
    group = ""
    for picture in pictures:
        if not parts:
            keys = _key(TRUE, "true outline") + _key(OURS, "ours") + _key(PAINTED, "painted slice")
            parts.append(f'<p class="about">Best, median and worst sequence of each modality, by J&amp;F.{keys}</p>\n')
        if picture.group != group:
            group = picture.group
            parts.append(f"<h3>{escape(group)}</h3>\n")
        caption = escape(picture.caption)
        parts.append(f"<figure><figcaption>{caption}</figcaption>{_image(picture.png, picture.caption)}</figure>\n")
    return "".join(parts)


def _key(colour: Colour, name: str) -> str:
    return f'<span class="key" style="background: rgb{colour}"></span>{escape(name)}'


def _image(png: bytes, alternative: str, kind: str = "picture") -> str:
    data = b64encode(png).decode("ascii")
    return f'<img class="{kind}" alt="{escape(alternative)}" src="data:image/png;base64,{data}">'
