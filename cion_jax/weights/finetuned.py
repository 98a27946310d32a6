"""Weights of fine-tuned networks: what our own file says of them, and how published files are recognised."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cion_jax.config import BNNECK_AUGMENTATION, CLUSTER_CONTRAST_AUGMENTATION, MGN_AUGMENTATION, Kernel
from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.finetune.encoder import encoder
from cion_jax.finetune.mgn import mgn
from cion_jax.finetune.network import Finetuned
from cion_jax.models.zoo import Backbone, backbone
from cion_jax.weights.card import pixels
from cion_jax.weights.mapping import State

#: A key that only the weights of a method have.
_MARKS = {"bnneck": "bottleneck.weight", "mgn": "b1_head.pool_layer.p", "cluster-contrast": "gap.p"}
#: The key whose rows are the classes.
_CLASSES = {"bnneck": "classifier.weight", "mgn": "b1_head.classifier.weight"}
#: What published MGN takes off its images' channels, which are 0 to 255, inside of the network.
_PIXELS = {"pixel_mean": MGN_AUGMENTATION.mean, "pixel_std": MGN_AUGMENTATION.std}
_AUGMENTATIONS = {
    "bnneck": BNNECK_AUGMENTATION,
    "mgn": MGN_AUGMENTATION,
    "cluster-contrast": CLUSTER_CONTRAST_AUGMENTATION,
}


def method_of(state: Mapping[str, np.ndarray]) -> str | None:
    """The method that a state_dict's keys are of; None for those of a backbone."""
    return next((method for method, key in _MARKS.items() if key in state), None)


def build(method: str, body: Backbone, *, classes: int, feature: str = "before") -> Finetuned:
    """The network of a method on a backbone."""
    if method == "mgn":
        return mgn(body, classes)
    if method == "cluster-contrast":
        return encoder(body)
    if method != "bnneck" or feature not in ("before", "after"):
        raise UserError(f"no fine-tuning is called {method!r} with the feature {feature!r}; make the file anew")
    return BNNeck(body, classes, "after" if feature == "after" else "before")


def classes_in(state: Mapping[str, np.ndarray]) -> int:
    """How many classes a state_dict's classifier has; 0 without one."""
    rows = state.get(_CLASSES.get(method_of(state) or "", ""))
    return 0 if rows is None else len(rows)


def from_card(noted: Mapping[str, str], body: Backbone, state: Mapping[str, np.ndarray]) -> Finetuned:
    """The network that a card describes; what the card lacks raises a KeyError or ValueError."""
    mean, std = pixels(noted)
    resize: Kernel = "bicubic" if noted.get("resize") == "bicubic" else "bilinear"
    body = replace(body, mean=mean, std=std, resize=resize)
    return build(noted["method"], body, classes=classes_in(state), feature=noted.get("feature", "before"))


def published(state: State, name: str, image_size: tuple[int, int] | None) -> tuple[Finetuned, State]:
    """The network whose weights a published file has, and these weights."""
    method = method_of(state)
    assert method is not None
    usual = _AUGMENTATIONS[method]
    body = backbone(name, image_size=image_size or usual.size)
    for key, values in _PIXELS.items():
        if key in state and not np.allclose(state[key].ravel(), 255 * np.array(values), rtol=1e-3):
            raise UserError(f"{key} is {state[key].ravel()}, not {255 * np.array(values)}: not of published MGN")
    resize: Kernel = "bilinear" if method == "bnneck" else "bicubic"
    network = build(method, replace(body, mean=usual.mean, std=usual.std, resize=resize), classes=classes_in(state))
    return network, {key: value for key, value in state.items() if key not in _PIXELS}


def with_pixels(network: Finetuned, state: State) -> State:
    """The keys that the published code of the method loads: that of MGN also has the scale of its pixels."""
    if network.method != "mgn":
        return state
    scale = {"pixel_mean": network.mean, "pixel_std": network.std}
    grey = {key: (255 * np.array(values)).astype(np.float32) for key, values in scale.items()}
    return {key: values.reshape(1, -1, 1, 1) for key, values in grey.items()} | state
