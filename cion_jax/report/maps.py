"""Two kinds of maps: where in an image a network is active, and where people lie among one another.

    activity of a place = root mean square over the channels of the last feature map
    plane of people     = the first two principal components of their features

The former says where features come from, the latter whether they keep people apart.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from cion_jax.config import MEAN, STD
from cion_jax.data.images import resize
from cion_jax.data.records import Records
from cion_jax.models.zoo import Variables
from cion_jax.report.page import paragraph, picture
from cion_jax.report.photos import HEIGHT, WIDTH, Photo, photograph, strip
from cion_jax.weights.file import Weights
from tfrecords_tools.sheet import spread

#: Images whose activity is shown, and people in the plane.
IMAGES, PEOPLE = 11, 12
#: Rows and columns of the smallest feature map that is worth a picture.
LEAST = 4, 2
_HEAT, _MARKERS, _DARK = "inferno", "osD^v<>pP*Xh", "#222222"


def has_map(weights: Weights) -> bool:
    """Whether the last feature map has places enough to show where in an image a network is active."""
    pixels = jax.ShapeDtypeStruct((1, *weights.backbone.image_size, 3), jnp.uint8)
    found = jax.eval_shape(partial(_activity, weights.backbone.apply), weights.variables, pixels)
    return found is not None and found.shape[1] >= LEAST[0] and found.shape[2] >= LEAST[1]


def activity(weights: Weights, records: Records) -> Iterator[str]:
    """Where the network is active in images that are evenly spread over a split."""
    numbers = spread(np.arange(len(records)), IMAGES)
    pixels = np.stack([resize(records.pixels(number), *weights.backbone.image_size) for number in numbers])
    found = _activity(weights.backbone.apply, weights.variables, pixels)
    if found is None:
        yield paragraph(f"{weights.backbone.name} has no last feature map that could be laid over an image.")
        return
    rows, columns = found.shape[1:]
    yield strip(
        "Above the image, below it where the last feature map is active: dark the least, bright the most active of "
        f"its {rows} x {columns} places.",
        (_over(records, number, places) for number, places in zip(numbers, np.asarray(found), strict=True)),
    )


def plane(features: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    """The people with the most images in a split, as points in the plane in which their features differ the most."""
    names, counts = np.unique(labels["identity"][labels["identity"] > 0], return_counts=True)
    names = np.sort(names[np.argsort(-counts, kind="stable")[:PEOPLE]])
    shown = np.isin(labels["identity"], names)
    if shown.sum() < 3:
        yield paragraph("There are too few images of people to draw a map of them.")
        return
    points, shares = flattened(features[shown])
    yield picture(
        _plane(points, shares, labels[shown]),
        f"Points in a plane: {shown.sum()} images of the identities {', '.join(map(str, names))}; images of one person "
        "lie together where the network knows them again",
        f"Each colour and number is one of the {len(names)} people with the most images, each mark a camera; a number "
        "stands beside the person's middlemost image. The axes are the first two principal components of the features "
        "of the images shown.",
    )


def flattened(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) in the plane in which the features vary the most, and each axis's share of the variance.

    The farthest point along an axis is on its positive side: no rotation of the features turns the picture around.
    """
    left, sizes, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    points = (left * sizes)[:, :2]
    farthest = np.take_along_axis(points, np.abs(points).argmax(axis=0)[None], axis=0)
    return points * np.where(farthest < 0, -1, 1), sizes[:2] ** 2 / max((sizes**2).sum(), 1e-30)


@partial(jax.jit, static_argnums=0)
def _activity(apply: Callable[..., Any], variables: Variables, pixels: Array) -> Array | None:
    """(N, rows, columns), or None where the network keeps nothing that has rows and columns."""
    images = (pixels.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)
    _, kept = apply(variables, images, return_features=True)
    last = _last_map([*kept.values()], pixels.shape[1] / pixels.shape[2])
    return None if last is None else jnp.sqrt(jnp.mean(jnp.square(last.astype(jnp.float32)), axis=-1))


def _last_map(kept: list[Array], height_to_width: float) -> Array | None:
    """(N, rows, columns, C): the last map that a network keeps, or else its tokens."""
    maps = [values for values in kept if values.ndim == 4]
    if maps or not kept:
        return maps[-1] if maps else None
    return _laid_out(kept[-1], height_to_width)


def _laid_out(tokens: Array, height_to_width: float) -> Array | None:
    """Tokens (N, T, C), with a class token in front or without, in rows and columns, if they are square patches."""
    if tokens.ndim != 3:
        return None
    for patches in (tokens.shape[1] - 1, tokens.shape[1]):
        rows = round((patches * height_to_width) ** 0.5)
        columns = round(rows / height_to_width)
        if rows * columns == patches > 0 and rows == columns * height_to_width:
            return tokens[:, -patches:].reshape(len(tokens), rows, columns, -1)
    return None


def _over(records: Records, number: int, places: np.ndarray) -> Photo:
    """An image above itself with the activity of its places laid over."""
    image = np.asarray(photograph(records, number))
    active = (places - places.min()) / max(np.ptp(places), 1e-30)
    fine = Image.fromarray(active.astype(np.float32)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    heat = colormaps[_HEAT](np.asarray(fine))[..., :3] * 255
    grey = image.mean(axis=2, keepdims=True)
    both = np.concatenate([image, np.uint8(0.4 * grey + 0.6 * heat)])
    row = records.index[number]
    who = f"identity {row['identity']}, camera {row['camera']}"
    return Photo(Image.fromarray(both), f"image {number}, {who}, and below it where the network is active", f"{number}")


def _plane(points: np.ndarray, shares: np.ndarray, labels: np.ndarray) -> Figure:
    figure = Figure((4.4, 5.4), layout="constrained")
    axes = figure.subplots()
    names, person = np.unique(labels["identity"], return_inverse=True)
    look: dict[str, Any] = {"s": 28, "edgecolors": _DARK, "linewidths": 0.5}
    colours = colormaps["Paired"](np.arange(PEOPLE))
    for camera, marker in zip(np.unique(labels["camera"]), cycle(_MARKERS), strict=False):
        some = labels["camera"] == camera
        axes.scatter(points[some, 0], points[some, 1], marker=marker, c=colours[person[some]], **look)
        axes.scatter([], [], marker=marker, c="white", label=f"camera {camera}", **look)
    for number, name in enumerate(names):
        mine = points[person == number]
        across, up = mine[np.linalg.norm(mine - mine.mean(axis=0), axis=1).argmin()]
        written = axes.annotate(str(name), (across, up), (3, 3), textcoords="offset points", weight="bold")
        written.set_path_effects([withStroke(linewidth=3, foreground="white")])
        axes.scatter([], [], marker="o", c=colours[number, None], label=f"identity {name}", **look)
    axes.set(xlabel=f"first axis, {shares[0]:.0%} of the variance", ylabel=f"second axis, {shares[1]:.0%}")
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
