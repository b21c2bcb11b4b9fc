"""The figures of a run as a page with plots: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path

from tools.bench.ratios import Result

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .2rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-top: 1px solid #ccc; }
.bar { fill: #1d4f8b; } .bare { fill: #b9c7d6; } .goal { stroke: #a33; stroke-dasharray: 4 3; }
text { font-size: 13px; }
"""
ROW, LEFT, WIDTH = 26, 220, 620


def plot(results: list[Result]) -> str:
    """A bar for each case: what the service does of what the bare handler does."""
    height = ROW * len(results) + 24
    unit = WIDTH / 1.2
    rows = []
    for place, result in enumerate(results):
        y = place * ROW
        width = min(result.ratio, 1.2) * unit
        rows.append(
            f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(result.case.name)}</text>'
            f'<rect class="bare" x="{LEFT}" y="{y + 4}" width="{unit:.0f}" height="16"/>'
            f'<rect class="bar" x="{LEFT}" y="{y + 4}" width="{width:.0f}" height="16"/>'
            f'<text x="{LEFT + max(width, unit) + 8:.0f}" y="{y + 17}">{result.ratio:.0%}</text>'
        )
    goal = LEFT + 0.8 * unit
    line = f'<line class="goal" x1="{goal:.0f}" x2="{goal:.0f}" y1="0" y2="{height - 20}"/>'
    label = f'<text x="{goal:.0f}" y="{height - 4}" text-anchor="middle">goal 80 %</text>'
    size = f'viewBox="0 0 {LEFT + WIDTH + 80} {height}" role="img" aria-label="The service as a part of a bare handler"'
    return f"<svg {size}>{''.join(rows)}{line}{label}</svg>"


def table(results: list[Result]) -> str:
    heads = ["", "bare/s", "service/s", "ratio", "p50 ms", "p99 ms", "CPU µs", "bare CPU µs", "pgbench/s"]
    rows = []
    for result in results:
        bare, service = result.bare, result.service
        cells = [
            escape(result.case.name), f"{bare.rate:.0f}", f"{service.rate:.0f}", f"{result.ratio:.0%}",
            f"{service.quantile(50):.2f}", f"{service.quantile(99):.2f}",
            f"{1e6 * sum(service.cpu) / len(service.cpu):.0f}", f"{1e6 * sum(bare.cpu) / len(bare.cpu):.0f}",
            f"{result.pgbench:.0f}",
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def write(path: Path, results: list[Result], notes: list[str]) -> None:
    """Write the page. `notes` are the lines that the other parts of the run have said."""
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Real Estate OS: what it costs</title>'
        f"<style>{STYLE}</style><h1>What the service costs</h1>"
        f"<p>One process of the service and a bare handler that runs the same statements in the same kind of"
        f" transaction, in turns; pgbench runs them without Python.</p>{plot(results) if results else ''}"
        f"{table(results) if results else ''}<ul>{said}</ul></html>\n"
    )
