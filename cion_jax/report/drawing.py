"""Drawings as SVG in the text of a page, in the page's own colours: one drawing fits light and dark.

Draw with the colours below. Each is exchanged for what it is called on the page; black becomes the colour of its text
and white that of its paper.
"""

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

PALE = "#bbbbbb"
BLUE = "#225588"
RED = "#cc3311"
#: Edges of marks.
DARK = "#222222"
GRID = "#dddddd"
_ON_THE_PAGE = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    PALE: "var(--pale)",
    BLUE: "var(--blue)",
    RED: "var(--red)",
    DARK: "var(--ink)",
    GRID: "var(--line)",
}
#: CSS pixels in an inch.
_INCH = 96


def svg(figure: Figure, says: str) -> str:
    """The element, with `says` as its text for those who cannot see it."""
    file = io.StringIO()
    # Without a salt and with a date no two pages of a run would be the same.
    with matplotlib.rc_context({"svg.hashsalt": "cion", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn = file.getvalue()
    inside = drawn[drawn.index("<defs>") :]
    # Names of groups repeat from drawing to drawing, and nothing refers to them.
    inside = re.sub(r'<g id="[^"]*"', "<g", inside)
    inside = re.sub(r"<!--.*?-->\s*", "", inside, flags=re.DOTALL).replace("xlink:href", "href")
    inside = re.sub('#[0-9a-f]{6}(?=[;"])', lambda colour: _ON_THE_PAGE.get(colour[0], colour[0]), inside)
    width, height = (round(_INCH * inches) for inches in figure.get_size_inches())
    points = f"0 0 {72 * width / _INCH:g} {72 * height / _INCH:g}"
    return (
        f'<svg role="img" aria-label="{escape(says)}" width="{width}" viewBox="{points}" fill="currentColor">{inside}'
    )
