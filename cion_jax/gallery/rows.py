"""What a gallery knows of each image, a row for each; and the groups in which answers are given.

Numbers are -1 and texts empty where nothing is known. Texts are bytes of one width, so that rows are a plain array.
"""

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

NUMBERS = np.dtype([("number", "<i8"), *((name, "<i4") for name in ("video", "tracklet", "frame", "camera"))])
#: Who it shows; where its file is, if it is not in a dataset; what the source calls its video and its tracklet.
TEXTS = ("person", "path", "video_name", "tracklet_name")

#: What an answer is: an image, or the tracklet or person of its nearest image.
By = Literal["image", "tracklet", "person"]


def make_rows(labels: np.ndarray, number: np.ndarray | None = None, **texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """The rows of images.

    Args:
        labels: (N,) with the fields video, tracklet, frame and camera, as the index of a dataset has them.
        number: (N,) the number of each image in its split; by default 0 to N - 1, and -1 for images that have a path.
        texts: Any of TEXTS, a text for each image, "" where it is not known; or as `encoded` makes them of fewer.
    """
    if unknown := texts.keys() - {*TEXTS}:
        raise TypeError(f"no such text: {', '.join(unknown)}; there are {', '.join(TEXTS)}")
    columns = {name: _column(texts.get(name, ())) for name in TEXTS}
    rows = np.zeros(len(labels), [*NUMBERS.descr, *((name, values.dtype) for name, values in columns.items())])
    for name, values in columns.items():
        rows[name] = values
    for name in ("video", "tracklet", "frame", "camera"):
        rows[name] = labels[name]
    rows["number"] = np.where(rows["path"] == b"", np.arange(len(rows)), -1) if number is None else number
    return rows


def are_rows(dtype: np.dtype) -> bool:
    """Whether this is the type of rows."""
    if dtype.names != (*NUMBERS.names, *TEXTS):  # type: ignore[misc]
        return False
    numbers = all(dtype[name] == NUMBERS[name] for name in NUMBERS.names or ())
    return numbers and all(dtype[name].kind == "S" for name in TEXTS)


def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rows behind rows; texts become as wide as the wider of both."""
    return np.concatenate([one, other])


def text(value: bytes) -> str:
    """A text of a row, to be shown: what cannot be printed is a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in os.fsdecode(value))


def group_numbers(rows: np.ndarray, by: By) -> np.ndarray:
    """(N,) a number for each image; the images of a tracklet, or of a person, have the same.

    Where the person is not known the tracklet stands for it; an image without a tracklet is a group of its own.
    """
    if by == "image":
        return np.arange(len(rows))
    if by == "tracklet":
        return _numbered(rows["tracklet"], rows["tracklet"] >= 0, np.arange(len(rows)))
    return _numbered(rows["person"], rows["person"] != b"", group_numbers(rows, "tracklet"))


def widest_group(rows: np.ndarray) -> By:
    """Person where any is known, or else tracklet where any is known, or else image."""
    return "person" if (rows["person"] != b"").any() else "tracklet" if (rows["tracklet"] >= 0).any() else "image"


def count_known(rows: np.ndarray) -> tuple[int, int, int]:
    """How many images, tracklets and people there are."""
    tracklets, people = np.unique(rows["tracklet"]), np.unique(rows["person"])
    return len(rows), int((tracklets >= 0).sum()), int((people != b"").sum())


def _numbered(names: np.ndarray, known: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Numbers for what is known, and behind them the numbers of the others."""
    result = np.empty(len(names), np.int64)
    different, result[known] = np.unique(names[known], return_inverse=True)
    result[~known] = len(different) + others[~known]
    return result


def encoded(texts: Sequence[str]) -> np.ndarray:
    """Texts as bytes, in an array; paths keep what is not UTF-8 in them."""
    return np.array([os.fsencode(each) for each in texts] or [b""], np.bytes_)


def _column(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    return texts if isinstance(texts, np.ndarray) else encoded(texts)
