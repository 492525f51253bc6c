"""The project page: the report as one HTML file, with plots as inline SVG. It loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from imos.server.project_report import Report, VersionSaid

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 560, 190, 46, 26

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .4rem}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1rem 0}
dl div{border:1px solid #d8dee4;border-radius:6px;padding:.6rem .8rem}dt{color:#57606a;font-size:.85rem}
dd{margin:0;font-size:1.35rem}table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr.champion td{background:#eaf6ec}
svg{max-width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#57606a}
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}dl div,th,td{border-color:#30363d}
tr.champion td{background:#12261a}svg text,dt{fill:#8b949e;color:#8b949e}}
"""


@dataclass(frozen=True, slots=True)
class Plot:
    """A line over volumes in the order in which they were accepted.

    Attributes:
        title: Over it.
        values: One a volume; None where nobody counted.
        names: Of the volumes, for who points at one.
        most: Upper end of the axis; None for what the values need.
    """

    title: str
    values: Sequence[float | None]
    names: Sequence[str]
    most: float | None = None


def page(report: Report) -> str:
    """The page.

    Args:
        report: What it says.
    """
    accepted = list({one.image: one for one in report.accepted}.values())  # each volume once, as it was accepted last
    names = [f"{one.image}, {one.time[:10]}, {one.version}" for one in accepted]
    plots = [
        Plot("Slices painted per volume", [one.painted for one in accepted], names),
        Plot(
            "Share of slices accepted untouched",
            [None if one.untouched is None or not one.slices else one.untouched / one.slices for one in accepted],
            names,
            most=1.0,
        ),
        Plot("Voxels corrected per volume", [one.corrected for one in accepted], names),
    ]
    models = report.models
    judged = [one for one in models.versions if one.figures.get("candidate") is not None]
    plots.append(
        Plot(
            "J&F of each version on the held-out volumes",
            [one.figures["candidate"] for one in judged],
            [one.name for one in judged],
            most=1.0,
        )
    )
    body = [
        "<h1>Project</h1>",
        _facts(report),
        *(f"<h2>{escape(plot.title)}</h2>{svg(plot)}" for plot in plots),
        "<h2>Versions</h2>",
        _versions(models.versions),
        "<h2>Moves</h2>",
        _table(
            ("when", "from", "to", "why"), [(one.time[:16], one.before, one.after, one.reason) for one in models.moves]
        ),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>iMOS project</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(body)}</body></html>'
    )


def svg(plot: Plot) -> str:
    """One plot; a sentence where there is nothing to plot."""
    found = [(place, value) for place, value in enumerate(plot.values) if value is not None]
    if not found:
        return "<p>Nothing yet.</p>"
    most = plot.most or max(1.0, *(value for _, value in found))
    across = (_WIDTH - _LEFT - 12) / max(1, len(plot.values) - 1)
    up = (_HEIGHT - _BOTTOM - 12) / most
    points = [(_LEFT + place * across, _HEIGHT - _BOTTOM - value * up) for place, value in found]
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(plot.title)}">']
    for share in (0.0, 0.5, 1.0):
        y = _HEIGHT - _BOTTOM - share * most * up
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8c959f55"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(share * most)}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="1.6"/>')
    for (x, y), (place, value) in zip(points, found, strict=True):
        title = escape(f"{plot.names[place]}: {_number(value)}")
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="#0969da"><title>{title}</title></circle>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}">1</text>')
    parts.append(f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{len(plot.values)}</text></svg>')
    return "".join(parts)


def _facts(report: Report) -> str:
    share, painted = report.untouched_share, report.painted_per_volume
    stage = str(report.round.get("stage") or "none yet")
    auto = f" of {report.auto_train}" if report.auto_train else ""
    facts = {
        "Volumes done": f"{report.done} of {report.images}",
        "They teach / they judge": f"{report.training} / {report.validation}",
        "Slices painted per volume": "–" if painted is None else f"{painted:.1f}",
        "Slices accepted untouched": "–" if share is None else f"{100 * share:.0f} %",
        "Voxels corrected": "–" if report.corrected_voxels is None else f"{report.corrected_voxels:,}",
        "Version in use": report.models.champion,
        "Latest round": stage,
        "Accepted since then": f"{report.since_last_round}{auto}",
    }
    return "<dl>" + "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in facts.items()) + "</dl>"


def _versions(versions: Sequence[VersionSaid]) -> str:
    rows = []
    for one in reversed(versions):
        figures = one.figures
        means = [figures.get(name) for name in ("candidate", "champion", "base")]
        cells = [one.name, one.parent, one.state, one.time[:16].replace("T", " ")]
        numbers = [f"{len(one.new)}+{len(one.replay)}", str(figures.get("volumes", 0))]
        numbers += ["–" if mean is None else f"{mean:.3f}" for mean in means]
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        row += "".join(f'<td class="n">{escape(cell)}</td>' for cell in numbers) + f"<td>{escape(one.reason)}</td>"
        rows.append(f'<tr class="{escape(one.state)}">{row}</tr>')
    if not rows:
        return "<p>None yet: the base is in use.</p>"
    names = ("version", "from", "state", "published")
    head = "".join(f"<th>{name}</th>" for name in names)
    head += "".join(f'<th class="n">{name}</th>' for name in ("labels", "judged on", "J&amp;F", "champion", "base"))
    return f"<table><tr>{head}<th>why</th></tr>{''.join(rows)}</table>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None yet.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in reversed(rows))
    return f"<table><tr>{head}</tr>{body}</table>"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"
