"""Two kinds of maps: where in an image a network is active, and how people lie in the space of features.

    activity of a place = root mean square over the channels of the last feature map
    plane of people     = the first two principal components of their features

The first says where features come from, the second whether they keep people apart.
"""

from collections.abc import Iterator
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

from cion_jax.data.images import resize
from cion_jax.data.pixels import normalise, to_float
from cion_jax.data.records import Records
from cion_jax.finetune.bnneck import BNNeck, backbone_variables
from cion_jax.models.network import Network
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.report.drawing import DARK
from cion_jax.report.page import paragraph, picture
from cion_jax.report.photos import HEIGHT, WIDTH, Photo, photograph, strip
from cion_jax.weights.file import Weights
from tfrecords_tools.sheet import spread

#: Images whose activity is shown.
IMAGES = 11
#: People in the plane.
PEOPLE = 12
#: Rows and columns of the smallest feature map that is worth a picture.
SMALLEST_MAP = (4, 2)
_HEAT = "inferno"
_MARKERS = "osD^v<>pP*Xh"


def keeps_maps(weights: Weights) -> bool:
    """Whether this is a network that can be asked for its maps: a backbone, or one with a neck behind it."""
    return isinstance(inside(weights).network, Backbone)


def has_map(weights: Weights) -> bool:
    """Whether the last feature map has enough places to show where in an image a network is active."""
    weights = inside(weights)
    pixels = jax.ShapeDtypeStruct((1, *weights.network.image_size, 3), jnp.uint8)
    maps = jax.eval_shape(partial(activity_maps, weights.network), weights.variables, pixels)
    return maps is not None and maps.shape[1] >= SMALLEST_MAP[0] and maps.shape[2] >= SMALLEST_MAP[1]


def activity(weights: Weights, records: Records) -> Iterator[str]:
    """Where the network is active, in images evenly spread over a split."""
    weights = inside(weights)
    numbers = spread(np.arange(len(records)), IMAGES)
    pixels = np.stack([resize(records.pixels(number), *weights.network.image_size) for number in numbers])
    maps = activity_maps(weights.network, weights.variables, pixels)
    if maps is None:
        yield paragraph(f"{weights.network.name} has no last feature map that could be laid over an image.")
        return
    rows, columns = maps.shape[1:]
    yield strip(
        "Above the image, below it where the last feature map is active: dark the least, bright the most active of "
        f"its {rows} x {columns} places.",
        (_over(records, number, places) for number, places in zip(numbers, np.asarray(maps), strict=True)),
    )


def inside(weights: Weights) -> Weights:
    """The backbone in front of a neck; any other network as it is."""
    if isinstance(weights.network, BNNeck):
        return Weights(weights.network.backbone, backbone_variables(weights.variables))
    return weights


def plane(features: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    """A plot of the people with the most images in a split, in the plane in which their features vary the most."""
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

    The farthest point along an axis is on its positive side, so that the picture does not depend on signs by chance.
    """
    left, sizes, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    points = (left * sizes)[:, :2]
    farthest = np.take_along_axis(points, np.abs(points).argmax(axis=0)[None], axis=0)
    return points * np.where(farthest < 0, -1, 1), sizes[:2] ** 2 / max((sizes**2).sum(), 1e-30)


@partial(jax.jit, static_argnums=0)
def activity_maps(network: Network, variables: Variables, pixels: Array) -> Array | None:
    """How active the last feature map is at each place, (N, rows, columns); None if the network keeps no such map."""
    if not isinstance(network, Backbone):
        return None
    images = normalise(to_float(pixels), network.mean, network.std)
    _, kept = network.apply(variables, images, return_features=True)
    last = _last_map([*kept.values()], pixels.shape[1] / pixels.shape[2])
    return None if last is None else jnp.sqrt(jnp.mean(jnp.square(last.astype(jnp.float32)), axis=-1))


def _last_map(kept: list[Array], height_to_width: float) -> Array | None:
    """(N, rows, columns, C): the last map that a network keeps, or else its tokens in rows and columns."""
    maps = [values for values in kept if values.ndim == 4]
    if maps or not kept:
        return maps[-1] if maps else None
    return _laid_out(kept[-1], height_to_width)


def _laid_out(tokens: Array, height_to_width: float) -> Array | None:
    """Tokens (N, T, C) in rows and columns, if they are square patches; a class token may stand in front of them."""
    if tokens.ndim != 3:
        return None
    for patches in (tokens.shape[1] - 1, tokens.shape[1]):
        rows = round((patches * height_to_width) ** 0.5)
        columns = round(rows / height_to_width)
        if rows * columns == patches > 0 and rows == columns * height_to_width:
            return tokens[:, -patches:].reshape(len(tokens), rows, columns, -1)
    return None


def _over(records: Records, number: int, places: np.ndarray) -> Photo:
    """A photograph, and below it the same in grey with the activity of its places laid over."""
    image = np.asarray(photograph(records, number))
    active = (places - places.min()) / max(np.ptp(places), 1e-30)
    fine = Image.fromarray(active.astype(np.float32)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    heat = colormaps[_HEAT](np.asarray(fine))[..., :3] * 255
    grey = image.mean(axis=2, keepdims=True)
    both = np.concatenate([image, np.uint8(0.4 * grey + 0.6 * heat)])
    row = records.index[number]
    says = (
        f"image {number}, identity {row['identity']}, camera {row['camera']}, and below it where the network is active"
    )
    return Photo(Image.fromarray(both), says, f"{number}")


def _plane(points: np.ndarray, shares: np.ndarray, labels: np.ndarray) -> Figure:
    figure = Figure((4.4, 5.4), layout="constrained")
    axes = figure.subplots()
    names, person = np.unique(labels["identity"], return_inverse=True)
    look: dict[str, Any] = {"s": 28, "edgecolors": DARK, "linewidths": 0.5}
    colours = colormaps["Paired"](np.arange(PEOPLE))
    for camera, marker in zip(np.unique(labels["camera"]), cycle(_MARKERS), strict=False):
        some = labels["camera"] == camera
        axes.scatter(points[some, 0], points[some, 1], marker=marker, c=colours[person[some]], **look)
        axes.scatter([], [], marker=marker, c="white", label=f"camera {camera}", **look)
    for number, name in enumerate(names):
        own = points[person == number]
        middlemost = own[np.linalg.norm(own - own.mean(axis=0), axis=1).argmin()]
        text = axes.annotate(str(name), middlemost, (3, 3), textcoords="offset points", weight="bold")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        axes.scatter([], [], marker="o", c=colours[number, None], label=f"identity {name}", **look)
    axes.set(xlabel=f"first axis, {shares[0]:.0%} of the variance", ylabel=f"second axis, {shares[1]:.0%}")
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
