"""Strips of photographs of people: as many side by side as the screen has room for, each with a caption."""

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from PIL import Image

from cion_jax.data.images import resize
from cion_jax.data.records import Records
from cion_jax.report.page import image

#: Height and width of a photograph in pixels.
HEIGHT, WIDTH = 144, 72


class Photo(NamedTuple):
    """An image of a person."""

    drawn: Image.Image
    says: str
    """The text for those who cannot see it."""
    caption: str
    kind: str = ""
    """"right" or "wrong", for answers to a query, or "doubtful": their frames differ in colour and in line."""


def photograph(records: Records, number: int) -> Image.Image:
    """An image of a split, at the size of a `Photo`."""
    return Image.fromarray(resize(records.pixels(number), HEIGHT, WIDTH))


def strip(caption: str, photos: Iterable[Photo]) -> str:
    """Photographs under a caption for all of them."""
    figures = "".join(
        f'<figure class="{kind}">{image(drawn, says)}<figcaption>{escape(own_caption)}</figcaption></figure>'
        for drawn, says, own_caption, kind in photos
    )
    return f'<div class="row"><p>{escape(caption)}</p><div class="strip">{figures}</div></div>'
