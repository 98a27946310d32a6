"""A page of one HTML file with its pictures in it: it needs no network, and suits phones, dark mode and paper."""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from cion_jax.report.drawing import svg

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fcfcfa; --line: #d8d8d4; --soft: #f1f1ec; --pale: #bbb;
  --blue: #225588; --red: #cc3311; --green: #228833; --orange: #c05a10; }
@media (prefers-color-scheme: dark) { :root { --ink: #dcdcd8; --paper: #1b1c1e; --line: #44464a; --soft: #26282b;
  --pale: #70747a; --blue: #7fb2e5; --red: #ff7a5c; --green: #5fbf70; --orange: #f0a060; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
h2 { display: inline; font-size: 1.2rem; }
a { color: var(--blue); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: .6rem 0; border-bottom: 1px solid var(--line);
  font-size: .9rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
p { max-width: 46rem; overflow-wrap: anywhere; } .row p { max-width: none; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
dt { font-weight: 600; margin-top: .4rem; } dd { margin: 0 0 0 1.2rem; }
pre, code { font: .85rem/1.6 ui-monospace, monospace; } code { white-space: nowrap; }
pre { padding: .6rem .8rem; background: var(--soft); border-radius: 4px; }
figure { margin: 1rem 0; } img, svg { max-width: 100%; height: auto; } img { border-radius: 4px; }
figcaption, .row p { font-size: .9rem; }
summary { cursor: pointer; margin: .5rem 0; }
.section { margin-top: 1.2rem; scroll-margin-top: .5rem; }
.section > summary { padding: .5rem 0; margin: 0; }
.care { border-left: 4px solid var(--red); padding-left: .8rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 1.5rem;
  margin: 1rem 0; } .beside > * { margin: 0; min-width: 0; }
.row p { margin: 1rem 0 .3rem; } .strip { display: flex; flex-wrap: wrap; gap: .5rem; }
.strip figure { margin: 0; width: 4.6rem; text-align: center; line-height: 1.3; }
.strip figcaption { font-size: .8rem; overflow-wrap: anywhere; }
.strip img { display: block; width: 100%; border: 4px solid var(--line); }
.strip .right img { border: 4px solid var(--green); } .strip .wrong img { border: 4px dashed var(--red); }
.strip .doubtful img { border: 4px dashed var(--orange); } .strip .doubtful { opacity: .7; }
@media (max-width: 40rem) { table { font-size: .85rem; } th, td { padding-right: .5rem; }
  .section { border-bottom: 1px solid var(--line); margin-top: 0; }
  .strip { gap: .3rem; } .strip figure { width: 3.4rem; } .strip figcaption { font-size: .7rem; } }
@media print { body { max-width: none; } nav { display: none; } figure, table, .row { break-inside: avoid; }
  summary, h3 { break-after: avoid; } }
"""
#: Without it, all sections are open. On a phone only the first is, until somebody asks for another or prints.
_SCRIPT = """
const sections = [...document.querySelectorAll(".section")];
if (matchMedia("(max-width: 40rem)").matches) sections.slice(1).forEach(each => each.open = false);
const show = () => { const asked = sections.find(each => "#" + each.id == location.hash);
  if (asked) { asked.open = true; asked.scrollIntoView(); } };
addEventListener("hashchange", show); show();
addEventListener("beforeprint", () => sections.forEach(each => each.open = true));
"""
#: With fewer sections a page has no contents.
_FEW = 3


class Heading(NamedTuple):
    """The beginning of a section, which goes to the next one."""

    title: str


#: What a page consists of.
Part = str | Heading


def page(title: str, parts: Iterable[Part]) -> str:
    """The whole file; `parts` are what the functions below return."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    begin = f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{_STYLE}</style></head>\n'
    above, *sections = _sections(parts)
    body = [f"<h1>{escape(title)}</h1>", _contents([name for name, _ in sections]), above[1], *map(_section, sections)]
    return f"{begin}<body>\n" + "\n".join(filter(None, body)) + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _sections(parts: Iterable[Part]) -> list[tuple[str, str]]:
    """The title and the inside of each section; the first has no title: it stands above all others."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for part in parts:
        if isinstance(part, Heading):
            sections.append((part.title, []))
        else:
            sections[-1][1].append(part)
    return [(title, "\n".join(inside)) for title, inside in sections]


def _contents(titles: Sequence[str]) -> str:
    links = "".join(f'<a href="#{_place(title)}">{escape(title)}</a>' for title in titles)
    return f'<nav aria-label="Contents">{links}</nav>' if len(titles) >= _FEW else ""


def _section(section: tuple[str, str]) -> str:
    title, inside = section
    above = f"<summary><h2>{escape(title)}</h2></summary>"
    return f'<details class="section" id="{_place(title)}" open>{above}\n{inside}\n</details>'


def _place(title: str) -> str:
    """What a link calls a section."""
    return "-".join(re.findall(r"\w+", title.lower()))


def take_care(text: str) -> str:
    """A warning. No line breaks within the options that it names."""
    marked = re.sub(r"--[a-z][a-z-]*", r"<code>\g<0></code>", escape(text))
    return f'<p role="note" class="care"><strong>Take care:</strong> {marked}.</p>'


def subheading(text: str) -> str:
    """The beginning of a part of a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Running text; what stands between backticks is a command."""
    marked = re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
    return f"<p>{marked}</p>"


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
    """A picture without a caption: drawings as SVG, photographs as JPEG."""
    if isinstance(drawn, Figure):
        return svg(drawn, says)
    file = io.BytesIO()
    drawn.save(file, format="JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(says)}" src="data:image/jpeg;base64,{data}">'
