"""The fixed rule by which the weights of the golden files were made, and the files themselves."""

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_TABLES = ("pos_embed", "cls_token", "relative_position_bias_table")
_SCALES = ("gamma", "gamma_xca", "layer_scale", "layer_scale_1", "layer_scale_2", "temperature")
_HERE = Path(__file__).parent.parent


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden value of one entry of a state_dict."""
    random, last = np.random.RandomState(zlib.crc32(key.encode())), key.rsplit(".", 1)[-1]
    if last == "running_var":
        factor = 3.0 if "rbr_" in key else 2.5 if "token_mixer.0.bn." in key else 1.0
        return (factor * random.uniform(0.5, 1.5, shape)).astype(np.float32)
    z = random.standard_normal(shape)
    if last in _TABLES:
        values = 0.5 * z
    elif last in _SCALES:
        values = 0.5 + 0.1 * z
    elif last == "p":
        values = 3.0 + 0.1 * z
    elif last == "weight_g" or (last == "weight" and len(shape) == 1):
        values = 1.0 + 0.1 * z
    elif len(shape) >= 2:
        centred = (z - np.roll(z, 1, axis=1)) / np.sqrt(2.0) if shape[1] > 1 else z
        values = centred / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.1 * z
    return values.astype(np.float32)


@functools.cache
def manifest(name: str) -> dict[str, Any]:
    """Every key of a model's state_dict with shape, type and kind, and its size."""
    return json.loads((_HERE / "manifest" / f"{name}.json").read_text())


@functools.cache
def index() -> dict[str, Any]:
    """What is known of each golden file: noise, rms, names of its BatchNorms."""
    return json.loads((_HERE / "golden" / "index.json").read_text())


def golden(name: str) -> dict[str, np.ndarray]:
    """The recorded arrays of a model."""
    with np.load(_HERE / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def state(name: str) -> dict[str, np.ndarray]:
    """The golden state_dict of a model."""
    values = {}
    for key, shape, dtype, _ in manifest(name)["keys"]:
        if dtype == "float32":
            values[key] = weight(key, tuple(shape))
        elif key.endswith("num_batches_tracked"):
            values[key] = np.zeros((), np.int64)
        else:
            values[key] = golden(name)["relative_position_index"].astype(dtype)
    return values


def images() -> tuple[np.ndarray, np.ndarray]:
    """The two global and the three local images."""
    return (
        np.random.RandomState(0).standard_normal((2, 256, 128, 3)).astype(np.float32),
        np.random.RandomState(1).standard_normal((3, 128, 64, 3)).astype(np.float32),
    )
