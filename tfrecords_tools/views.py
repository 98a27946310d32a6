"""A picture of augmentation: images in the first column, the crops that training would see beside them."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cion_jax.atomic import write_atomically
from cion_jax.config import MEAN, STD, Crops
from cion_jax.data import images
from cion_jax.data.augment import multi_crop
from cion_jax.data.records import Records

_GAP = 4
_PAPER = (250, 250, 248)


def draw_views(records: Records, crops: Crops, path: Path, *, rows: int, seed: int) -> None:
    """Write `views_of` some images, evenly spread over the records, as a PNG."""
    chosen = np.unique(np.linspace(0, len(records) - 1, rows, dtype=int))
    picture = views_of(records, crops, chosen, seed)
    write_atomically(path, lambda aside: picture.save(aside, format="PNG"))


def views_of(records: Records, crops: Crops, chosen: np.ndarray, seed: int) -> Image.Image:
    """A picture with one row for each chosen image: the image at the size of a global crop, its two global crops, its
    local crops."""
    originals = np.stack([images.resize(records.pixels(number), *crops.global_size) for number in chosen])
    make = jax.jit(partial(multi_crop, crops=crops, dtype=jnp.float32))
    views = [_as_pixels(view, crops) for view in make(originals, jax.random.key(seed))]
    width = crops.global_size[1]
    narrow = crops.local_size[1]
    pitch = _GAP + max(view.shape[2] for view in views if view.shape[1])
    size = (_GAP + 3 * (width + _GAP) + crops.local_crops * (narrow + _GAP), _GAP + len(chosen) * pitch)
    picture = Image.new("RGB", size, _PAPER)
    for row, (original, global_crops, local_crops) in enumerate(zip(originals, *views, strict=True)):
        left = _GAP
        for pixels in (original, *global_crops, *local_crops):
            picture.paste(Image.fromarray(pixels), (left, _GAP + row * pitch))
            left += pixels.shape[1] + _GAP
    return picture


def _as_pixels(views: jax.Array, crops: Crops) -> np.ndarray:
    return np.round((np.asarray(views) * STD + MEAN) * 255).astype(np.uint8)
