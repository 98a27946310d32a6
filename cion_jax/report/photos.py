"""Photographs of people in strips: as many side by side as a screen has room for, each with what is known of it."""

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from PIL import Image

from cion_jax.data.images import resize
from cion_jax.data.records import Records
from cion_jax.report.page import image

#: Pixels of a photograph.
HEIGHT, WIDTH = 144, 72


class Photo(NamedTuple):
    """An image of a person."""

    drawn: Image.Image
    says: str
    """The text that stands for it where it cannot be seen."""
    caption: str
    kind: str = ""
    """A "right" answer or a "wrong" one: their frames differ in colour and in kind."""


def photograph(records: Records, number: int) -> Image.Image:
    """An image of a split, at the size at which pages show people."""
    return Image.fromarray(resize(records.pixels(number), HEIGHT, WIDTH))


def strip(told: str, photos: Iterable[Photo]) -> str:
    """Photographs under what is told of them all."""
    figures = "".join(
        f'<figure class="{kind}">{image(drawn, says)}<figcaption>{escape(caption)}</figcaption></figure>'
        for drawn, says, caption, kind in photos
    )
    return f'<div class="row"><p>{escape(told)}</p><div class="strip">{figures}</div></div>'
