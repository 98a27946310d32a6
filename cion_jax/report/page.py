"""A page of one HTML file with its pictures in it: it needs no network, and suits phones, dark mode and paper."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fcfcfa; --line: #ccc; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #1b1c1e; --line: #555; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-top: 1.5rem; }
p { overflow-wrap: anywhere; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
dt { font-weight: 600; margin-top: .4rem; } dd { margin: 0 0 0 1.2rem; }
pre { font: .85rem/1.6 ui-monospace, monospace; padding: .6rem .8rem; border: 1px solid var(--line);
  border-radius: 4px; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, .row p { font-size: .9rem; }
summary { cursor: pointer; margin: .5rem 0; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 1.5rem;
  margin: 1rem 0; } .beside > * { margin: 0; }
.row p { margin: 1rem 0 .3rem; } .strip { display: flex; flex-wrap: wrap; gap: .5rem; }
.strip figure { margin: 0; width: 4.6rem; text-align: center; line-height: 1.3; }
.strip figcaption { font-size: .8rem; }
.strip img { display: block; box-sizing: border-box; width: 100%; border: 4px solid var(--line); }
.strip .right img { border: 4px solid #228833; } .strip .wrong img { border: 4px dashed #cc3311; }
.strip .doubtful img { border: 4px dashed #ee7733; } .strip .doubtful { opacity: .7; }
@media (max-width: 30rem) { table { font-size: .85rem; } th, td { padding-right: .5rem; }
  .strip { gap: .3rem; } .strip figure { width: 3.4rem; } .strip figcaption { font-size: .7rem; } }
@media print { body { max-width: none; } figure, table, .row { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""

#: Pixels per inch of a drawing.
_DENSITY = 192
#: Its pixels per pixel of the page, so that screens of high density show it sharp.
_FINER = 2


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file; `parts` are what the functions below return."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    begin = f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{_STYLE}</style></head>\n'
    return f"{begin}<body>\n{body}\n</body>\n</html>\n"


def heading(text: str) -> str:
    """The beginning of a section."""
    return f"<h2>{escape(text)}</h2>"


def subheading(text: str) -> str:
    """The beginning of a part of a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Running text."""
    return f"<p>{escape(text)}</p>"


def definitions(meanings: Mapping[str, str]) -> str:
    """A list of words with their meanings."""
    pairs = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in meanings.items())
    return f"<dl>{pairs}</dl>"


def commands(lines: str) -> str:
    """Lines for a terminal, to be copied as they are."""
    return f'<pre class="wide">{escape(lines)}</pre>'


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; whole numbers get commas, and the first column is left-aligned."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(summary: str, inside: str) -> str:
    """A part that is hidden until its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(drawn: Figure | Image.Image, says: str, caption: str = "") -> str:
    """A picture with a caption; `says` is its text for those who cannot see it.

    Drawings should be at most 4.4 inches wide: phones show them without scaling.
    """
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{image(drawn, says)}{under}</figure>"


def beside(*parts: str) -> str:
    """Pictures or tables side by side, as far as the screen has room."""
    return f'<div class="beside">{"".join(parts)}</div>'


def image(drawn: Figure | Image.Image, says: str) -> str:
    """A picture without a caption: drawings as PNG, photographs as JPEG."""
    file = io.BytesIO()
    if isinstance(drawn, Figure):
        drawn.savefig(file, format="png", dpi=_DENSITY)
        size = f' width="{Image.open(file).width // _FINER}"'
    else:
        drawn.save(file, format="JPEG", quality=85)
        size = ""
    kind = "png" if size else "jpeg"
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(says)}"{size} src="data:image/{kind};base64,{data}">'
