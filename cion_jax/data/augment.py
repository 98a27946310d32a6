"""Multi-crop on the device: uint8 images in, normalised global and local crops out, inside the jitted step.

The views are those that published ReID pre-training makes with torchvision and Pillow: random resized crop, flip,
colour jitter in a random order, grey, Gaussian blur, solarize. What a view is like is drawn first (`sample`), then it
is made (`render`). Both are about one image; `multi_crop` maps them over the batch. So a row depends on no other
row, and not on how many devices share the rows.

Between two steps a picture `rgb` is float32 of whole numbers 0 to 255, as Pillow would hand them on: so every step can
be held against Pillow's. Its shape is (h, 3, w), a line of red, one of green, one of blue: three channels in the
innermost place would leave vector units idle, and in this order both resampling products are plain ones. Colours are
changed in three planes (h, w).

Shapes in names: B images, V views of an image, H and W an image's sides, h and w a crop's, T tries for a box.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from cion_jax.config import MEAN, STD, Crops
from cion_jax.data.resample import blur, resize, whole

_TRIES = 10  # T
_BOX_NUMBERS = 2 * _TRIES + 2  # an area and an aspect for each try, and a place
_OTHER_NUMBERS = 11  # of a view, see _views
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_ORDERS = tuple(permutations(range(4)))
_UNCHANGED = (1.0, 1.0, 1.0, 0.0)

Colour = tuple[float, float, float]
#: Red, green and blue of a picture, (h, w) each: what is worked out from all three is one kernel then.
Planes = tuple[Array, Array, Array]


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


def multi_crop(
    images: Array, key: Array, crops: Crops, dtype: DTypeLike, *, on_cpu: bool = False
) -> tuple[Array, Array]:
    """Global crops (B, 2, h, w, 3) and local crops (B, n, h', w', 3) of uint8 images (B, H, W, 3).

    The same key gives the same crops, on any number of devices. Call it inside jit, with all but the first two
    arguments static. With `on_cpu` each device makes the crops of one image at a time, if the images divide so, and
    blurs by shifts; a CPU is twice as fast where a crop stays in its cache. Otherwise all images are worked on at once.
    """

    def crop(image_HxWx3: Array, view: View, size: tuple[int, int]) -> Array:
        rgb_hx3xw = render(image_HxWx3, view, size, crops.blur_radius[1], on_cpu=on_cpu)
        return normalise(rgb_hx3xw).astype(dtype)

    def crop_all(image_HxWx3: Array, key: Array) -> tuple[Array, Array]:
        height, width, _ = image_HxWx3.shape
        global_views, local_views = sample(key, height, width, crops)
        global_crops_2xhxwx3 = jax.vmap(partial(crop, image_HxWx3, size=crops.global_size))(global_views)
        local_crops_nxhxwx3 = jax.vmap(partial(crop, image_HxWx3, size=crops.local_size))(local_views)
        return global_crops_2xhxwx3, local_crops_nxhxwx3

    return map_images(crop_all, images, key, on_cpu=on_cpu)


def map_images(make: Callable[[Array, Array], Any], images: Array, key: Array, *, on_cpu: bool) -> Any:
    """`make(image, key)` of all images, each with a key of its own: at once, or a group at a time that has one image
    of each device."""
    keys = jax.random.split(key, len(images))
    at_once = jax.vmap(make)
    if not on_cpu:
        return at_once(images, keys)
    rows = len(images)
    devices = math.gcd(rows, jax.device_count())
    # neighbours are on one device: of (devices, rows / devices) a group is a column
    groups = [values.reshape(devices, -1, *values.shape[1:]).swapaxes(0, 1) for values in (images, keys)]
    made = jax.lax.map(lambda group: at_once(*group), tuple(groups))
    return jax.tree.map(lambda values: values.swapaxes(0, 1).reshape(rows, *values.shape[2:]), made)


def sample(key: Array, height: int, width: int, crops: Crops) -> tuple[View, View]:
    """Draw the two global and the n local views of an image of this size."""
    n = crops.local_crops
    # All that is random about an image is drawn at once: one draw for each thing would take XLA seconds to compile.
    numbers = jax.random.uniform(key, (2 + n, _OTHER_NUMBERS + _BOX_NUMBERS))

    def views(
        numbers_VxN: Array, scale: tuple[float, float], blur_V: tuple[float, ...], solarize_V: tuple[float, ...]
    ) -> View:
        choose = partial(choose_box, height=height, width=width, scale=scale, aspect=crops.aspect)
        boxes_Vx4 = jax.vmap(choose)(numbers_VxN[:, _OTHER_NUMBERS:])
        numbers_11xV = numbers_VxN[:, :_OTHER_NUMBERS].T
        return _views(boxes_Vx4, numbers_11xV, jnp.array(blur_V), jnp.array(solarize_V), crops)

    return (
        views(numbers[:2], crops.global_scale, crops.blur[:2], (0, crops.solarize)),
        views(numbers[2:], crops.local_scale, crops.blur[2:] * n, (0,) * n),
    )


def choose_box(
    numbers: Array, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> Array:
    """Top, left, height and width of a random resized crop, from uniform numbers: the first of ten tries that fits
    into the image; if none does, the largest box in its middle whose width / height is allowed."""
    areas_T = height * width * between(numbers[:_TRIES], *scale)
    aspects_T = jnp.exp(between(numbers[_TRIES:-2], math.log(aspect[0]), math.log(aspect[1])))
    sides_Tx2 = jnp.sqrt(jnp.stack([areas_T / aspects_T, areas_T * aspects_T], axis=1))
    image = jnp.array([height, width])
    box, fits = first_that_fits(numbers[-2:], sides_Tx2, image, image)
    largest = jnp.array([min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))])
    in_the_middle = jnp.concatenate([(image - largest) // 2, largest])
    return jnp.where(fits, box, in_the_middle)


def first_that_fits(numbers_2: Array, sides_Tx2: Array, image_2: Array, largest_2: Array) -> tuple[Array, Array]:
    """Top, left, height and width of the first box that is no larger than allowed, at the place in an image for which
    two uniform numbers stand; and whether there is one."""
    sizes_Tx2 = jnp.round(sides_Tx2).astype(jnp.int32)
    fits_T = ((sizes_Tx2 > 0) & (sizes_Tx2 <= largest_2)).all(axis=1)
    size_2 = sizes_Tx2[jnp.argmax(fits_T)]
    corner_2 = jnp.floor(numbers_2 * (image_2 - size_2 + 1)).astype(jnp.int32)
    return jnp.concatenate([corner_2, size_2]), fits_T.any()


def _views(boxes_Vx4: Array, numbers_11xV: Array, blur_V: Array, solarize_V: Array, crops: Crops) -> View:
    """The views that uniform numbers, eleven for each, stand for."""
    changes_Vx4 = numbers_11xV[:4].T
    order, flip, jittered, dropped, blurred, radius, solarized = numbers_11xV[4:]
    strength = jnp.array(crops.jitter_strength)
    unchanged = jnp.array(_UNCHANGED)
    lowest = (unchanged - strength).at[:_HUE].max(0)  # no factor but the hue's turn is negative
    factors_Vx4 = between(changes_Vx4, lowest, unchanged + strength)
    return View(
        box=boxes_Vx4,
        flip=flip < crops.flip,
        order=jnp.array(_ORDERS)[(order * len(_ORDERS)).astype(jnp.int32)],
        factors=jnp.where((jittered < crops.jitter)[:, None], factors_Vx4, unchanged),
        grey=dropped < crops.grey,
        radius=jnp.where(blurred < blur_V, between(radius, *crops.blur_radius), 0),
        solarize=solarized < solarize_V,
    )


def between(numbers: Array, low: ArrayLike, high: ArrayLike) -> Array:
    """The values between two bounds for which uniform numbers stand."""
    return jnp.asarray(low) + numbers * (jnp.asarray(high) - low)


def render(image: Array, view: View, size: tuple[int, int], largest_radius: float, *, on_cpu: bool = False) -> Array:
    """The view (h, 3, w) of a uint8 image (H, W, 3). No view may have a larger radius than the one given here."""
    rgb = resize(image, view.box, size, view.flip, on_cpu=on_cpu)
    planes = jitter((rgb[:, 0], rgb[:, 1], rgb[:, 2]), view.factors, view.order)
    grey = luminance(planes)
    rgb = jnp.stack([jnp.where(view.grey, grey, plane) for plane in planes], axis=1)
    rgb = blur(rgb, view.radius, largest_radius, on_cpu=on_cpu)
    return jnp.where(view.solarize, solarize(rgb), rgb)


def normalise(rgb: Array, mean: Colour = MEAN, std: Colour = STD) -> Array:
    """What a network takes, (h, w, 3), of a picture (h, 3, w)."""
    mean_3x1 = jnp.array(mean)[:, None]
    std_3x1 = jnp.array(std)[:, None]
    return ((rgb / 255 - mean_3x1) / std_3x1).transpose(0, 2, 1)


def luminance(planes: Planes) -> Array:
    """The grey picture."""
    red, green, blue = planes
    weighted = 19595 * red + 38470 * green + 7471 * blue  # whole, below 2^24: exact in float32
    return jnp.floor((weighted + 32768) / 65536)


def jitter(planes: Planes, factors: Array, order: Array) -> Planes:
    """Change brightness, contrast, saturation and hue by the factors, in the given order.

    Hue is the costly one, so it has one place in the program. The other slots of the order are gone through before it
    and again after it; on the side where a slot does not belong its factor is 1.
    """
    slots_4 = jnp.arange(4)
    hue_slot = jnp.argmax(order == _HUE)

    def blend_all(planes: Planes, slots: range, active_4: Array) -> Planes:
        factors_4 = jnp.where(active_4, factors[order], 1)
        for slot in slots:
            planes = blend(planes, order[slot], factors_4[slot])
        return planes

    planes = blend_all(planes, range(0, 3), slots_4 < hue_slot)
    planes = turn_hue(planes, factors[_HUE])
    return blend_all(planes, range(1, 4), slots_4 > hue_slot)


def blend(planes: Planes, kind: Array, factor: Array) -> Planes:
    """Towards (factor < 1) or away from black for brightness, the mean grey for contrast, the own grey of each pixel
    for saturation."""
    grey = luminance(planes)
    mean = jnp.floor(grey.mean() + 0.5)
    origin = jnp.where(kind == _SATURATION, grey, jnp.where(kind == _CONTRAST, mean, 0))
    red, green, blue = (jnp.floor(jnp.clip(origin + factor * (plane - origin), 0, 255)) for plane in planes)
    return red, green, blue


def turn_hue(planes: Planes, turn: Array) -> Planes:
    """Turn the colour wheel, by a share of it. Hue and saturation are whole numbers in between, as they are in Pillow's
    HSV."""
    red, green, blue = planes
    # to HSV: the value is the largest channel; the hue counts from the corner of that channel, in sixths of the wheel
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    difference = jnp.where(red == value, green - blue, jnp.where(green == value, blue - red, red - green))
    corner = jnp.where(red == value, 0, jnp.where(green == value, 2, 4))
    hue = _fraction((corner + difference / jnp.maximum(chroma, 1)) / 6 + 1)
    hue = 256 * _fraction((jnp.floor(255 * hue) + jnp.trunc(255 * turn)) / 256)
    saturation = jnp.floor(255 * chroma / jnp.maximum(value, 1))

    # and back: each channel falls from the value by the saturation, the farther its corner is from the hue
    def channel(corner: int, plane: Array) -> Array:
        distance = 6 * _fraction(corner / 6 + hue / 255)
        turned = value - value * saturation / 255 * jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1)
        return jnp.where(turn == 0, plane, whole(turned))

    return channel(5, red), channel(3, green), channel(1, blue)


def _fraction(x: Array) -> Array:
    return x - jnp.floor(x)


def solarize(rgb: Array) -> Array:
    """Values of 128 and above, inverted."""
    return jnp.where(rgb >= 128, 255 - rgb, rgb)
