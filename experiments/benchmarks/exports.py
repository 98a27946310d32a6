"""How near do exported networks come to ours, and how large are the files?

python -m experiments.benchmarks.exports

Every backbone of the zoo with weights that are drawn, and the fine-tuned networks on ResNet-18: StableHLO as
`jax.export.deserialize` reads it, and ONNX in onnxruntime (needs cion-jax[stablehlo,onnx]). The difference is the
largest of any number, divided by the largest number of the features that `cion embed` would store.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import onnxruntime
from tyro.conf import Positional

from cion_jax.evaluate.embed import unit_features
from cion_jax.export.onnx.program import onnx_model
from cion_jax.export.program import card
from cion_jax.export.stablehlo import stablehlo
from cion_jax.models.network import Network
from cion_jax.models.resnet import SMALL
from cion_jax.models.zoo import ZOO, Variables, backbone
from cion_jax.weights.finetuned import build
from experiments.benchmarks.command import command

METHODS = {"bnneck": (256, 128), "mgn": (384, 128), "cluster-contrast": (256, 128)}
NAMES = (*(name for name in ZOO if name != SMALL), *METHODS)
FORMATS = ("stablehlo", "onnx")


def main(names: Positional[tuple[str, ...]] = NAMES, images: int = 3) -> None:
    """Print a Markdown table.

    Args:
        names: Backbones, or methods of fine-tuning.
        images: In the batch that is compared.
    """
    print("| | StableHLO, MiB | difference | ONNX, MiB | difference |\n|---|---|---|---|---|")
    for name in names:
        network = network_of(name)
        variables = drawn(network.shapes())
        pixels = np.random.default_rng(0).integers(0, 256, (images, *network.image_size, 3), np.uint8)
        expected = np.asarray(jax.jit(partial(unit_features, network))(variables, pixels))
        cells = [f"{name} on resnet18_ibn" if name in METHODS else name]
        for form in FORMATS:
            exported, run = made(form, network, variables)
            difference = np.abs(run(pixels) - expected).max() / np.abs(expected).max()
            cells += [f"{len(exported) / 2**20:.1f}", f"{difference:.1e}"]
        print(f"| {' | '.join(cells)} |", flush=True)
        jax.clear_caches()  # compiled programs hold their weights


def network_of(name: str) -> Network:
    """The network of a row."""
    if name not in METHODS:
        return backbone(name)
    return build(name, backbone("resnet18_ibn", image_size=METHODS[name]), classes=10, feature="after")


def made(form: str, network: Network, variables: Variables) -> tuple[bytes, Callable[[np.ndarray], np.ndarray]]:
    """The file, and what it computes, as somebody who has nothing of ours would load it."""
    if form == "stablehlo":
        artefact = stablehlo(network, variables)
        call = jax.jit(jax.export.deserialize(bytearray(artefact)).call)
        return artefact, lambda pixels: np.asarray(call(pixels))
    model = onnx_model(network, variables, card(network, "drawn"))
    session = onnxruntime.InferenceSession(model)
    return model, lambda pixels: session.run(None, {"pixels": pixels})[0]


def drawn(shapes: Variables) -> Variables:
    """Variables with which features neither vanish nor explode.

    Where branches are added up, three in FastViT and RepViT, each has a third of the variance: else it grows from block
    to block, gates and attention answer by yes or no, and the last bit of a sum becomes the first of a feature.
    """
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        place = "/".join(part.key for part in path)
        normal = random.standard_normal(leaf.shape)
        if name == "kernel":
            values = normal / np.sqrt(np.prod(leaf.shape[:-1]))
        elif name in ("scale", "var", "temperature", "p") or "gamma" in name or "layer_scale" in name:
            values = {"p": 3.0, "scale": 1.0, "var": 1.0, "temperature": 1.0}.get(name, 0.5) * np.exp(0.1 * normal)
            if name == "var" and ("rbr_" in place or "token_mixer.0/" in place):
                values *= 3
        else:
            values = 0.1 * normal
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


if __name__ == "__main__":
    command(main)
