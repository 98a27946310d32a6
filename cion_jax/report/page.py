"""One HTML file with its pictures in it: needs no network, and reads on a phone, in the dark and on paper."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fcfcfa; --line: #ccc; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #1b1c1e; --line: #555; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .9rem; }
@media print { body { max-width: none; } figure, table { break-inside: avoid; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file; `parts` are what the functions below return."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    begin = f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{_STYLE}</style></head>\n'
    return f"{begin}<body>\n{body}\n</body>\n</html>\n"


def heading(text: str) -> str:
    """The beginning of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Running text."""
    return f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; whole numbers get commas, the first column is at the left."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(drawn: Figure | Image.Image, says: str, caption: str = "") -> str:
    """A picture with the text that stands for it where it cannot be seen."""
    file = io.BytesIO()
    if isinstance(drawn, Figure):
        drawn.savefig(file, format="png", dpi=120, bbox_inches="tight")
    else:
        drawn.save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode()
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(says)}" src="data:image/png;base64,{data}">{under}</figure>'
