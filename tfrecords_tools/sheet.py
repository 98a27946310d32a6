"""A contact sheet: chosen identities or tracklets in rows, their images in columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cion_jax.data import images
from cion_jax.data.records import Records
from cion_jax.errors import UserError

_GAP = 4
_CAPTION = 64
_LINE = 16
_INK = (60, 60, 60)
_PAPER = (250, 250, 248)

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def picture_format(path: Path) -> str:
    """The format that a picture's name says, as Pillow calls it."""
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: does not end like a picture; name it with {', '.join(_FORMATS)}")
    return _FORMATS[path.suffix.lower()]


def rows_of(labels: np.ndarray, chosen: Sequence[int], rows: int, columns: int) -> dict[int, np.ndarray]:
    """Image numbers for each row of a sheet: of the chosen labels, or of `rows` evenly spread over those with the
    most images; at most `columns` of them, evenly spread over a label's images."""
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(values):
        raise UserError("no image of this split has such a label; try --by tracklet, or give --labels FILE")
    if unknown := sorted(set(chosen) - set(values.tolist())):
        raise UserError(f"no image is labelled {unknown[0]}; labels run from {values[0]} to {values[-1]}")
    if not chosen:
        full = values[counts >= min(columns, np.median(counts))]
        chosen = full[np.unique(np.linspace(0, len(full) - 1, rows, dtype=int))].tolist()
    return {label: spread(np.flatnonzero(labels == label), columns) for label in chosen}


def spread(numbers: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the numbers, evenly spread over them."""
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, count, dtype=int))]


def sheet_of(
    records: Records,
    rows: dict[int, np.ndarray],
    names: Mapping[int, str] = {},
    *,
    height: int = 128,
    width: int = 64,
) -> Image.Image:
    """Images by label, side by side; each row is captioned with its label and, where that has one, its name in the
    source; each image with its frame and, where that is known, its camera."""
    font = ImageFont.load_default(size=12)
    columns = max(len(numbers) for numbers in rows.values())
    above = _LINE if names else 0
    row_height = above + height + _LINE + _GAP
    size = (_CAPTION + columns * (width + _GAP) + _GAP, len(rows) * row_height + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (label, numbers) in enumerate(rows.items()):
        top = _GAP + row * row_height + above
        pen.text((_CAPTION, top - above), _shown(names.get(label, "")), fill=_INK, font=font)
        pen.text((_GAP, top + height / 2), str(label), fill=_INK, font=font)
        for column, number in enumerate(numbers):
            left = _CAPTION + column * (width + _GAP)
            sheet.paste(Image.fromarray(images.resize(records.pixels(number), height, width)), (left, top))
            pen.text(
                (left + width / 2, top + height), caption_of(records.index[number]), fill=_INK, font=font, anchor="ma"
            )
    return sheet


def _shown(name: str) -> str:
    """A name as far as it can be drawn, in one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def caption_of(row: np.void) -> str:
    """Camera and frame of an image, as far as they are known."""
    known = [f"{letter}{row[name]}" for letter, name in (("c", "camera"), ("f", "frame")) if row[name] >= 0]
    return " ".join(known)
