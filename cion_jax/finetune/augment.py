"""Augmentation of fine-tuning on the device: uint8 images in, what a network sees out, inside the jitted step.

An image is resized, mirrored, moved by a few pixels and has a rectangle erased, as in published fine-tuning. As for the
crops of pre-training (`data.augment`), what is random is drawn first (`sample`), then the picture is made (`render`),
both for one image; so a row depends on no other row. Until they are normalised, pictures are float32 (h, 3, w) of whole
numbers 0 to 255, as Pillow would hand them on.

Shapes in names: B images, H and W an image's sides, h and w a picture's, T tries for a rectangle.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from cion_jax.config import Augmentation
from cion_jax.data.augment import between, first_that_fits, map_images, normalise
from cion_jax.data.resample import resize


class View(NamedTuple):
    """What makes a training picture of an image."""

    flip: Array
    """Whether it is mirrored."""
    corner: Array
    """Top and left of the crop in the framed picture."""
    box: Array
    """Top, left, height and width of what is erased; zeros erase nothing."""
    fill: Array
    """What takes its place, normalised: (1, 1, 3) one colour, or (h, w, 3) of which the box shows a part."""


def augment(images: Array, key: Array, settings: Augmentation, dtype: DTypeLike, *, on_cpu: bool = False) -> Array:
    """Training pictures (B, h, w, 3) of uint8 images (B, H, W, 3), normalised.

    The same key gives the same pictures, on any number of devices. Call it inside jit, with all but the first two
    arguments static. With `on_cpu` each device works on one image at a time, if the images divide so, which is faster
    there.
    """

    def make(image_HxWx3: Array, key: Array) -> Array:
        return render(image_HxWx3, sample(key, settings), settings, on_cpu=on_cpu).astype(dtype)

    return map_images(make, images, key, on_cpu=on_cpu)


def sample(key: Array, settings: Augmentation) -> View:
    """Draw what happens to an image."""
    numbers_key, noise_key = jax.random.split(key)
    numbers = jax.random.uniform(numbers_key, (6 + 2 * settings.erase_tries,))
    flip, erase = numbers[:2]
    box = choose_rectangle(numbers[4:], settings)
    return View(
        flip=flip < settings.flip,
        corner=jnp.floor(numbers[2:4] * (2 * settings.pad + 1)).astype(jnp.int32),
        box=jnp.where(erase < settings.erase, box, 0),
        fill=_fill(noise_key, settings),
    )


def choose_rectangle(numbers: Array, settings: Augmentation) -> Array:
    """Top, left, height and width of what is erased, from uniform numbers: areas and aspects of the tries, and a place.
    The first try that is lower and narrower than the picture is taken; without one all are zero."""
    areas, aspects = jnp.split(numbers[:-2], 2)
    low, high = settings.erase_aspect
    areas_T = math.prod(settings.size) * between(areas, *settings.erase_area)
    if settings.erase_spread == "uniform":
        aspects_T = between(aspects, low, high)
    else:
        aspects_T = jnp.exp(between(aspects, math.log(low), math.log(high)))
    sides_Tx2 = jnp.sqrt(jnp.stack([areas_T * aspects_T, areas_T / aspects_T], axis=1))
    picture = jnp.array(settings.size)
    box, fits = first_that_fits(numbers[-2:], sides_Tx2, picture, picture - 1)
    return jnp.where(fits, box, 0)


def _fill(key: Array, settings: Augmentation) -> Array:
    if settings.erase_fill == "noise":
        return jax.random.normal(key, (*settings.size, 3))
    if settings.erase_fill == "black":
        return normalise(jnp.zeros((1, 3, 1)), settings.mean, settings.std)
    return jnp.array(settings.erase_fill)[None, None]


def render(image: Array, view: View, settings: Augmentation, *, on_cpu: bool = False) -> Array:
    """The view of a uint8 image (H, W, 3), normalised: (h, w, 3)."""
    rgb = _resize_all(image, settings.size, view.flip, on_cpu)
    rgb = crop_framed(rgb, view.corner, settings.pad)
    return erase(normalise(rgb, settings.mean, settings.std), view.box, view.fill)


def _resize_all(image: Array, size: tuple[int, int], flip: Array, on_cpu: bool) -> Array:
    """The whole image at another size; at its own size, the same pixels."""
    height, width, _ = image.shape
    return resize(image, jnp.array([0, 0, height, width]), size, flip, "bicubic", on_cpu=on_cpu)


def crop_framed(rgb: Array, corner: Array, pad: int) -> Array:
    """A crop as large as the picture (h, 3, w), out of the picture in a black frame."""
    top, left = corner
    framed = jnp.pad(rgb, ((pad, pad), (0, 0), (pad, pad)))
    return jax.lax.dynamic_slice(framed, (top, 0, left), rgb.shape)


def erase(values: Array, box: Array, fill: Array) -> Array:
    """Normalised values (h, w, 3), inside of the box those that fill it."""
    top, left, height, width = box
    rows_hx1x1 = jnp.arange(values.shape[0])[:, None, None]
    columns_wx1 = jnp.arange(values.shape[1])[:, None]
    inside_rows = (rows_hx1x1 >= top) & (rows_hx1x1 < top + height)
    inside_columns = (columns_wx1 >= left) & (columns_wx1 < left + width)
    return jnp.where(inside_rows & inside_columns, fill, values)
