"""Multi-crop on the device: uint8 images in, normalised global and local crops out, inside the jitted step.

The views are those that published ReID pre-training makes with torchvision and Pillow: random resized crop, flip,
colour jitter in a random order, grey, Gaussian blur, solarize. What a view is like is drawn first (`sample`), then it
is made (`render`). Both are about one image; `multi_crop` maps them over the batch, so that no row can depend on
another one, nor on how many devices share the rows.

Between two steps a picture is float32 of whole numbers 0 to 255, as Pillow would hand them on: so every step can be
held against Pillow's. Its shape is (h, 3, w), a line of red, one of green, one of blue: three channels in the innermost
place would leave vector units idle, and in this order both resampling products are plain ones.
"""

import math
from functools import partial
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from cion_jax.config import MEAN, STD, Crops
from cion_jax.data.resample import blur, resize, whole

_TRIES = 10  # for a box that fits
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_ORDERS = tuple(permutations(range(4)))
_NOTHING = (1.0, 1.0, 1.0, 0.0)


class View(NamedTuple):
    """What makes a crop of an image. Several crops are a View of arrays with one more axis in front."""

    box: Array
    """Top, left, height and width of the cut-out."""
    flip: Array
    """Whether it is mirrored."""
    order: Array
    """In which brightness (0), contrast (1), saturation (2) and hue (3) are changed."""
    factors: Array
    """By which they are; 1, 1, 1 and 0 (hue is a turn of the wheel) change nothing."""
    grey: Array
    """Whether colours are dropped."""
    radius: Array
    """Of the blur; 0 leaves the picture sharp."""
    solarize: Array
    """Whether values of 128 and above are inverted."""


def multi_crop(images: Array, key: Array, crops: Crops, dtype: DTypeLike) -> tuple[Array, Array]:
    """Global crops (B, 2, h, w, 3) and local crops (B, n, h', w', 3) of uint8 images (B, H, W, 3).

    The same key gives the same crops, on any number of devices. Call it inside jit, with `crops` and `dtype` static.
    """

    def crop(image: Array, view: View, size: tuple[int, int]) -> Array:
        return normalise(render(image, view, size, crops.blur_radius[1])).astype(dtype)

    def crop_all(image: Array, key: Array) -> tuple[Array, Array]:
        global_views, local_views = sample(key, image.shape[0], image.shape[1], crops)
        return (
            jax.vmap(partial(crop, image, size=crops.global_size))(global_views),
            jax.vmap(partial(crop, image, size=crops.local_size))(local_views),
        )

    keys = jax.random.split(key, len(images))
    if jax.default_backend() != "cpu":
        return jax.vmap(crop_all)(images, keys)
    # A CPU is twice as fast where a crop stays in its cache: one image of each device at a time, if rows divide so.
    together = math.gcd(len(images), jax.device_count())
    groups = (values.reshape(together, -1, *values.shape[1:]).swapaxes(0, 1) for values in (images, keys))
    done = jax.lax.map(lambda group: jax.vmap(crop_all)(*group), tuple(groups))
    global_crops, local_crops = (values.swapaxes(0, 1).reshape(len(images), *values.shape[2:]) for values in done)
    return global_crops, local_crops


def sample(key: Array, height: int, width: int, crops: Crops) -> tuple[View, View]:
    """Draw the two global and the n local views of an image of this size."""
    n = crops.local_crops
    # All that is random about an image is drawn at once: one draw for each thing would take XLA seconds to compile.
    numbers = jax.random.uniform(key, (2 + n, 2 * _TRIES + 2 + 11))

    def views(numbers: Array, scale: tuple[float, float], blur: tuple[float, ...], solarize: tuple[float, ...]) -> View:
        boxes = partial(choose_box, height=height, width=width, scale=scale, aspect=crops.aspect)
        return _views(jax.vmap(boxes)(numbers[:, 11:]), numbers[:, :11].T, jnp.array(blur), jnp.array(solarize), crops)

    return (
        views(numbers[:2], crops.global_scale, crops.blur[:2], (0, crops.solarize)),
        views(numbers[2:], crops.local_scale, crops.blur[2:] * n, (0,) * n),
    )


def choose_box(
    numbers: Array, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> Array:
    """Top, left, height and width of a random resized crop, from uniform numbers: the first of ten tries that fits
    into the image; if none does, the largest box in its middle whose width / height is allowed."""
    areas, aspects, place = numbers[:_TRIES], numbers[_TRIES:-2], numbers[-2:]
    areas = height * width * _between(areas, *scale)
    aspects = jnp.exp(_between(aspects, math.log(aspect[0]), math.log(aspect[1])))
    sizes = jnp.round(jnp.sqrt(jnp.stack([areas / aspects, areas * aspects], axis=1))).astype(jnp.int32)
    image = jnp.array([height, width])
    fits = ((sizes > 0) & (sizes <= image)).all(axis=1)
    size = sizes[jnp.argmax(fits)]
    corner = jnp.floor(place * (image - size + 1)).astype(jnp.int32)
    middle = jnp.array([min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))])
    return jnp.where(fits.any(), jnp.concatenate([corner, size]), jnp.concatenate([(image - middle) // 2, middle]))


def _views(boxes: Array, numbers: Array, blur: Array, solarize: Array, crops: Crops) -> View:
    """The views that uniform numbers, eleven for each, stand for."""
    change, (order, flip, jittered, dropped, blurred, radius, solarized) = numbers[:4].T, numbers[4:]
    strength = jnp.array(crops.jitter_strength)
    middle = jnp.array(_NOTHING)
    factors = _between(change, (middle - strength).at[:_HUE].max(0), middle + strength)
    return View(
        box=boxes,
        flip=flip < crops.flip,
        order=jnp.array(_ORDERS)[(order * len(_ORDERS)).astype(jnp.int32)],
        factors=jnp.where((jittered < crops.jitter)[:, None], factors, middle),
        grey=dropped < crops.grey,
        radius=jnp.where(blurred < blur, _between(radius, *crops.blur_radius), 0),
        solarize=solarized < solarize,
    )


def _between(numbers: Array, low: ArrayLike, high: ArrayLike) -> Array:
    return jnp.asarray(low) + numbers * (jnp.asarray(high) - low)


def render(image: Array, view: View, size: tuple[int, int], largest_radius: float) -> Array:
    """The view (h, 3, w) of a uint8 image (H, W, 3). No view may have a larger radius than the one given here."""
    rgb = resize(image, view.box, size, view.flip)
    rgb = jitter(rgb, view.factors, view.order)
    rgb = jnp.where(view.grey, luminance(rgb), rgb)
    rgb = blur(rgb, view.radius, largest_radius)
    return jnp.where(view.solarize, solarize(rgb), rgb)


def normalise(rgb: Array) -> Array:
    """What a network takes, (h, w, 3), of a picture (h, 3, w)."""
    mean, deviation = (jnp.array(value)[:, None] for value in (MEAN, STD))
    return ((rgb / 255 - mean) / deviation).transpose(0, 2, 1)


def luminance(rgb: Array) -> Array:
    """The grey picture (h, 1, w)."""
    weighted = 19595 * rgb[:, :1] + 38470 * rgb[:, 1:2] + 7471 * rgb[:, 2:]  # whole, below 2^24: exact in float32
    return jnp.floor((weighted + 32768) / 65536)


def jitter(rgb: Array, factors: Array, order: Array) -> Array:
    """Change brightness, contrast, saturation and hue by the factors, in the given order.

    Hue is the costly one, so it has one place in the program. The other slots of the order are gone through before it
    and again after it; on the side where a slot does not belong its factor is 1.
    """
    slots, turn = jnp.arange(4), jnp.argmax(order == _HUE)

    def blend_all(rgb: Array, some: slice, active: Array) -> Array:
        chosen = order[some], jnp.where(active, factors[order], 1)[some]
        return jax.lax.scan(lambda rgb, slot: (blend(rgb, *slot), None), rgb, chosen)[0]

    rgb = blend_all(rgb, slice(0, 3), slots < turn)
    rgb = turn_hue(rgb, factors[_HUE])
    return blend_all(rgb, slice(1, 4), slots > turn)


def blend(rgb: Array, kind: Array, factor: Array) -> Array:
    """Towards (factor < 1) or away from black for brightness, the mean grey for contrast, the own grey of each pixel
    for saturation."""
    grey = luminance(rgb)
    mean = jnp.floor(grey.mean() + 0.5)
    origin = jnp.where(kind == _SATURATION, grey, jnp.where(kind == _CONTRAST, mean, 0))
    return jnp.floor(jnp.clip(origin + factor * (rgb - origin), 0, 255))


def turn_hue(rgb: Array, turn: Array) -> Array:
    """Turn the colour wheel. Hue and saturation are whole numbers in between, as they are in Pillow's HSV."""
    red, green, blue = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    difference = jnp.where(red == value, green - blue, jnp.where(green == value, blue - red, red - green))
    corner = jnp.where(red == value, 0, jnp.where(green == value, 2, 4))
    hue = _fraction((corner + difference / jnp.maximum(chroma, 1)) / 6 + 1)
    hue = 256 * _fraction((jnp.floor(255 * hue) + jnp.trunc(255 * turn)) / 256)
    saturation = jnp.floor(255 * chroma / jnp.maximum(value, 1))
    distance = 6 * _fraction(jnp.array([5, 3, 1])[:, None] / 6 + hue / 255)
    turned = value - value * saturation / 255 * jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1)
    return jnp.where(turn == 0, rgb, whole(turned))


def _fraction(x: Array) -> Array:
    return x - jnp.floor(x)


def solarize(rgb: Array) -> Array:
    """Values of 128 and above, inverted."""
    return jnp.where(rgb >= 128, 255 - rgb, rgb)
