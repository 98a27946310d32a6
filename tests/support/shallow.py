"""The smallest network of each family with few blocks, and MGN on one of them, with the golden rule's weights: all the
operators of a family, and little to compile."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cion_jax.evaluate.embed import unit_features
from cion_jax.models import ghostnet
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables, backbone
from cion_jax.weights.file import Weights, save
from cion_jax.weights.finetuned import build
from cion_jax.weights.mapping import from_state_dict, state_dict
from golden_weights import weight

#: Options that make a backbone shallow.
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet10_half_ibn": {},
    "convnext_tiny": {"depths": (1, 1, 1, 1)},
    "edgenext_x_small": {"depths": (1, 1, 1, 1)},
    # Of GhostNet's bottlenecks those of each kind: with and without a stride, with and without gates.
    "ghostnet_0_5": {"table": (*ghostnet.TABLE[:2], *ghostnet.TABLE[3:6])},
    "repvit_m0_9": {"depths": (1, 1, 2, 1)},
    "fastvit_sa12": {"depths": (1, 1, 1, 1)},
    "vit_tiny": {"depth": 2},
    "swin_tiny": {"depths": (1, 1, 1, 2)},
    "volo_d1": {"depths": (1, 1, 1, 1)},
}
#: MGN has all that the other methods put around a backbone.
FINE_TUNED = "mgn"


@functools.cache
def network(name: str) -> Network:
    """That of a family's backbone, or MGN on the smallest ResNet."""
    if name == FINE_TUNED:
        return build(name, backbone("resnet10_half_ibn", image_size=(96, 32)), classes=4)
    return backbone(name, image_size=(64, 32), **FAMILIES[name])


@functools.cache
def variables(name: str) -> Variables:
    """Its weights."""
    shapes = network(name).shapes()
    blank = state_dict(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), network(name).order)
    return from_state_dict(shapes, {key: weight(key, value.shape) for key, value in blank.items()})


@functools.cache
def pixels(name: str) -> np.ndarray:
    """Three images of its size."""
    return np.random.default_rng(0).integers(0, 256, (3, *network(name).image_size, 3), np.uint8)


@functools.cache
def features(name: str) -> np.ndarray:
    """What `cion embed` stores of them."""
    return np.asarray(jax.jit(unit_features, static_argnums=0)(network(name), variables(name), pixels(name)))


def saved(name: str, path: Path) -> Path:
    """A file of its weights."""
    save(path, Weights(network(name), variables(name)))
    return path
