"""What a pre-training saw: images of some people, and the crops that augmentation made of them."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from cion_jax.config import Crops
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.report.page import paragraph, picture
from tfrecords_tools.sheet import spread
from tfrecords_tools.views import views_of

#: People that are shown, and images of each.
PEOPLE = 3
IMAGES = 2
#: Rows of pixels below which a crop is enlarged.
HEIGHT = 96
#: No run has larger crops, or more of them.
_LARGEST, _MOST = 1024, 64


def views_seen(settings: dict[str, Any], records: Records, labels: np.ndarray) -> Iterator[str]:
    """Images of people evenly spread, each with its crops as the settings of the run make them.

    Args:
        settings: Those of the run, as JSON has them.
        records: The split that it learnt from.
        labels: (N,) who counted as the same person; -1 is left out.
    """
    try:
        crops = crops_of(settings)
    except UserError as error:
        yield paragraph(f"Not shown: {error}.")
        return
    people = spread(np.unique(labels[labels >= 0]), PEOPLE)
    chosen = np.concatenate([spread(np.flatnonzero(labels == person), IMAGES) for person in people])
    drawn = views_of(records, crops, chosen, seed=0)
    if (larger := -(-HEIGHT // crops.global_size[0])) > 1:
        drawn = drawn.resize((drawn.width * larger, drawn.height * larger), Image.Resampling.NEAREST)
    local = f", and {crops.local_crops} local crops, which the student alone sees" if crops.local_crops else ""
    says = f"{len(chosen)} images of {len(people)} people in rows, each with its crops beside it"
    caption = (
        f"In each row an image, two global crops as teacher and student see them{local}. "
        f"{IMAGES} images of each person, where there are as many; other crops are drawn in each step."
    )
    yield picture(drawn, says, caption)


def crops_of(settings: dict[str, Any]) -> Crops:
    """The crops of a run's settings; values of another type than ours are refused."""
    usual = json.loads(json.dumps(dataclasses.asdict(Crops())))  # tuples become lists
    given = settings.get("crops")
    if not isinstance(given, dict):
        raise UserError("the settings name no crops")
    values: dict[str, Any] = {name: given.get(name, value) for name, value in usual.items()}
    if wrong := [name for name, value in values.items() if not _is_like(value, usual[name])]:
        raise UserError(f"crops: {wrong[0]} is {str(values[wrong[0]])[:40]}")
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    crops = Crops(**tuples)
    sizes = (*crops.global_size, *crops.local_size)
    if min(sizes) < 1 or max(sizes) > _LARGEST or not 0 <= crops.local_crops <= _MOST:
        raise UserError(f"crops of {crops.global_size} and {crops.local_crops} of {crops.local_size}")
    return crops


def _is_like(value: Any, usual: Any) -> bool:
    """Whether it is a number, or as many of them, and whole ones where the usual ones are."""
    if isinstance(usual, list):
        return isinstance(value, list) and len(value) == len(usual) and all(map(_is_like, value, usual))
    return type(value) is int or (type(value) is float and type(usual) is float)
