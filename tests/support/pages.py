"""What a page of ours holds, for tests to ask."""

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image


class Page(HTMLParser):
    """What a page holds: pictures, headings, links, and text paragraph by paragraph."""

    def __init__(self, text: str):
        super().__init__()
        self.pictures: list[dict[str, Any]] = []
        """Photographs, each with its "alt" and "src", and drawings, with "alt" and the number of their "marks"."""
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.headings: list[str] = re.findall("<h2>(.*?)</h2>", text)
        self.links: list[str] = []
        self.sections: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attributes}
        self.sections += [given["id"]] if tag == "details" and "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        if tag == "img":
            self.pictures.append(given)
        elif tag == "svg":
            self.pictures.append({"alt": given["aria-label"], "marks": 0})
        elif tag == "path":
            self.pictures[-1]["marks"] += 1

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    @property
    def drawings(self) -> list[dict[str, Any]]:
        return [picture for picture in self.pictures if "marks" in picture]

    def texts_with(self, pattern: str) -> list[re.Match[str]]:
        return [result for text in self.texts if (result := re.search(pattern, text))]


def can_be_seen(picture: dict[str, Any]) -> bool:
    """Whether a picture is in the page itself, and is not blank."""
    if "marks" in picture:
        return picture["marks"] > 10
    kind, data = picture["src"].split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as drawn:
        assert kind == f"data:image/{str(drawn.format).lower()}"
        return len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 20
