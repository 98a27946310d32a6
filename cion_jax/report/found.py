"""What a search found, in pictures: a row for each query, with its answers in their order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from cion_jax.errors import UserError
from cion_jax.evaluate.embed import Images
from cion_jax.gallery.answers import Answers
from cion_jax.report.page import page, paragraph
from cion_jax.report.photos import HEIGHT, WIDTH, Photo, strip
from tfrecords_tools.sheet import spread

#: Queries that are shown; of more, so many evenly spread.
QUERIES = 100
_GREY = 200


def found(answers: Answers, asked: Images) -> str:
    """The page, as HTML. `asked` are the images of the queries."""
    return page("Who is who in the index", _parts(answers, asked))


def _parts(answers: Answers, asked: Images) -> Iterator[str]:
    shown = spread(np.arange(len(answers.names)), QUERIES).tolist()
    some = (
        ""
        if len(shown) == len(answers.names)
        else f" {len(shown)} of {len(answers.names):,}, evenly spread, are shown."
    )
    yield paragraph(
        f"Each row is a query and behind it the nearest {_PLURAL[answers.by]} of {len(answers.gallery.rows):,} images, "
        f"each by its nearest image, with the distance under it.{some}"
    )
    yield paragraph(answers.about_threshold())
    for remark in answers.remarks():
        yield paragraph(f"Take care: {remark}.")
    for query in shown:
        listed = [*answers.of(query)]
        own = Photo(_photograph(asked, query), f"query {answers.names[query]}", "query")
        yield strip(_caption(answers.names[query], listed), [own, *(_photo(answers, each) for each in listed)])


_PLURAL = {"image": "images", "tracklet": "tracklets", "person": "people"}


def _caption(name: str, listed: list[dict[str, Any]]) -> str:
    if listed and listed[0]["match"] is None:
        return name
    matches = sum(bool(each["match"]) for each in listed)
    return f"{name}: {matches} {'match' if matches == 1 else 'matches'}" if matches else f"{name}: nobody matches"


def _photo(answers: Answers, answer: dict[str, Any]) -> Photo:
    """An answer: framed as right where it is a match."""
    who = _who(answer)
    mark = " ✓" if answer["match"] else ""
    says = f"rank {answer['rank']}, distance {answer['distance']:.3f}{', a match' if mark else ''}: {who}"
    kind = "right" if mark else ""
    return Photo(_photograph(answers.images, answer["row"]), says, f"{answer['distance']:.2f}{mark} {who}", kind)


def _who(answer: dict[str, Any]) -> str:
    """The person, or else the tracklet as the source calls it, or by its number."""
    if "person" in answer:
        return f"person {answer['person']}" if answer["person"].isdecimal() else answer["person"]
    if "tracklet_name" in answer:
        return f"{answer.get('video_name', '')} {answer['tracklet_name']}"
    return f"tracklet {answer['tracklet']}" if "tracklet" in answer else f"image {answer['row']}"


def _photograph(images: Images, number: int) -> Image.Image:
    """An image, or grey where it is not there any more."""
    pixels = np.full((HEIGHT, WIDTH, 3), _GREY, np.uint8)
    try:
        images.pixels_into(pixels, number)
    except (UserError, OSError):
        pixels[:] = _GREY
    return Image.fromarray(pixels)
