"""Records that others wrote: their features under our names.

A card of such shards says what they call the features that we know. What they do not have is unknown (-1); height and
width are read off the image itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cion_jax.data import images
from cion_jax.data.example import ImageRecord, values_of
from cion_jax.data.labels import FIELDS

#: The features that can be named; all but the image may be missing.
NAMED = ("image", *FIELDS, "source")
_LARGEST = np.iinfo(np.int32).max


class NoFeatureError(ValueError):
    """A record does not have a feature of that name."""


def decode(payload: bytes, features: Mapping[str, str]) -> ImageRecord:
    """A payload as a record of ours; a ValueError says what does not fit.

    Args:
        payload: A `tf.train.Example`.
        features: What its features are called, by our names.
    """
    values = values_of(payload)
    image = _only(features["image"], values, bytes)
    height, width = images.header(image)
    labels = {name: _label(features[name], values) if name in features else -1 for name in FIELDS}
    source = _only(features["source"], values, bytes).decode() if "source" in features else ""
    return ImageRecord(image, height, width, **labels, source=source)


def _label(name: str, values: Mapping[str, list]) -> int:
    number = _only(name, values, int)
    if not -1 <= number <= _LARGEST:
        raise ValueError(f"its feature {name!a} is {number}, not from -1 to {_LARGEST}")
    return number


def _only(name: str, values: Mapping[str, list], kind: type) -> Any:
    """The value of a feature that must have one, of a type."""
    if name not in values:
        raise NoFeatureError(f"it has no feature {name!a}")
    if len(values[name]) != 1 or not isinstance(values[name][0], kind):
        what = "one text or image" if kind is bytes else "one whole number"
        raise ValueError(f"its feature {name!a} is not {what}")
    return values[name][0]
