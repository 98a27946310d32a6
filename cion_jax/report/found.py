"""What a search found, in pictures: a row for each query, with its answers in their order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from cion_jax.errors import UserError
from cion_jax.evaluate.embed import Images
from cion_jax.gallery.answers import Answers
from cion_jax.gallery.rows import By
from cion_jax.report.page import page, paragraph, take_care
from cion_jax.report.photos import HEIGHT, WIDTH, Photo, strip
from tfrecords_tools.sheet import spread

#: Queries that are shown; of more, so many evenly spread.
QUERIES = 100
#: Stands for an image that is not there.
_NOTHING = Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200))


def found(answers: Answers, asked: Images) -> str:
    """The page, as HTML. `asked` are the images of the queries."""
    shown = spread(np.arange(len(answers.names)), QUERIES).tolist()
    strips, missing = _strips(answers, asked, shown)
    return page("Who is who in the index", [*_about(answers, len(shown), missing), *strips])


def _about(answers: Answers, shown: int, missing: int) -> Iterator[str]:
    """What the rows are."""
    queries = len(answers.names)
    some = "" if shown == queries else f" {shown} of {queries:,} queries, evenly spread, are shown."
    yield paragraph(
        f"Each row is a query and behind it the nearest {_PLURAL[answers.by]} of {len(answers.gallery.rows):,} images, "
        f"each by its nearest image, with the distance under it; a match has a green frame.{some}"
    )
    yield paragraph(answers.about_threshold())
    for remark in answers.remarks():
        yield take_care(remark)
    if missing:
        yield take_care(f"{missing:,} images are not there any more, or damaged, and are grey")


def _strips(answers: Answers, asked: Images, shown: list[int]) -> tuple[list[str], int]:
    """A row for each query that is shown, and how many images of all rows could not be read."""
    strips = []
    missing = 0
    for query in shown:
        listed = [*answers.of(query)]
        drawn = [_drawn(asked, query), *(_drawn(answers.images, each["row"]) for each in listed)]
        missing += drawn.count(None)
        own = Photo(drawn[0] or _NOTHING, f"query {answers.names[query]}", "query")
        photos = [_photo(each, image or _NOTHING, answers.by) for each, image in zip(listed, drawn[1:], strict=True)]
        strips.append(strip(_caption(answers.names[query], listed), [own, *photos]))
    return strips, missing


_PLURAL = {"image": "images", "tracklet": "tracklets", "person": "people"}


def _caption(name: str, listed: list[dict[str, Any]]) -> str:
    if listed and listed[0]["match"] is None:
        return name
    matches = sum(bool(each["match"]) for each in listed)
    return f"{name}: {matches} {'match' if matches == 1 else 'matches'}" if matches else f"{name}: nobody matches"


def _photo(answer: dict[str, Any], drawn: Image.Image, by: By) -> Photo:
    """An answer: framed as right where it is a match."""
    who = _who(answer, by)
    mark = " ✓" if answer["match"] else ""
    says = f"rank {answer['rank']}, distance {answer['distance']:.3f}{', a match' if mark else ''}: {who}"
    return Photo(drawn, says, f"{answer['distance']:.2f}{mark} {who}", "right" if mark else "")


def _who(answer: dict[str, Any], by: By) -> str:
    """The person, unless tracklets are asked for; or the tracklet as the source calls it, or by its number."""
    if "person" in answer and by != "tracklet":
        return f"person {answer['person']}" if answer["person"].isdecimal() else answer["person"]
    if "tracklet_name" in answer:
        return f"{answer.get('video_name', '')} {answer['tracklet_name']}"
    return f"tracklet {answer['tracklet']}" if "tracklet" in answer else f"image {answer['row']}"


def _drawn(images: Images, number: int) -> Image.Image | None:
    """An image; None where it is not there any more."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    try:
        images.pixels_into(pixels, number)
    except (UserError, OSError):
        return None
    return Image.fromarray(pixels)
