"""What a page of ours holds, for tests to ask."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a page holds: pictures, headings, links, and text paragraph by paragraph."""

    def __init__(self, text: str):
        super().__init__()
        self.pictures: list[dict[str, str]] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.pictures.append({name: value or "" for name, value in attributes})

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def texts_with(self, pattern: str) -> list[re.Match[str]]:
        return [result for text in self.texts if (result := re.search(pattern, text))]
