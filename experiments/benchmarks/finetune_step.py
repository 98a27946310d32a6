"""How fast is a step of fine-tuning beside the same step in PyTorch, and how many images does a device hold?

pip install -e '.[torch]' && python -m experiments.benchmarks.finetune_step
python -m experiments.benchmarks.finetune_step resnet50_ibn --batch 64 --rounds 5     # on a GPU

Both begin with the same weights and do the same mathematics (tests/test_torch_finetune.py), on images that are on the
device already; augmentation, which ours does in the step, is off. Memory is what XLA plans for our program: what does
not grow with the batch, and what each image adds.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from tyro.conf import Positional

from cion_jax.config import MEAN, STD, Bnneck, ClusterContrast, Finetuning, Mgn
from cion_jax.finetune.step import Labelled
from cion_jax.models.zoo import backbone
from cion_jax.run.finetuning import FinetuningMethod, network_of
from cion_jax.run.forecast import memory
from cion_jax.run.method import abstract_state, jit_step
from cion_jax.run.sharding import batch_sharding, make_mesh, replicated, shardings_of
from cion_jax.weights.file import Weights, plain
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import SHARE
from experiments.benchmarks.timing import environment, rates
from experiments.benchmarks.torch_finetune import (
    BnneckStep,
    ClusterContrastStep,
    ClusterMemory,
    MgnStep,
    bnneck,
    cluster_contrast,
    mgn,
    resnet,
)
from experiments.benchmarks.torch_resnets import ResNet

#: Identities, or clusters.
CLASSES = 751
METHODS: dict[str, Finetuning] = {"bnneck": Bnneck(), "mgn": Mgn(), "cluster-contrast": ClusterContrast()}


def main(
    name: Positional[str] = "resnet18",
    batch: int = 16,
    height: int = 128,
    rounds: int = 3,
    steps: int = 1,
    gigabytes: tuple[int, ...] = (16, 80),
) -> None:
    """Print a Markdown table, a row for each method.

    Args:
        name: A ResNet.
        batch: Images in a step.
        height: Of images, in pixels; they are half as wide, and for mgn a third.
        rounds: How often each side has its turn; the printed figures are medians.
        steps: Steps in a turn.
        gigabytes: Sizes of devices, of which the images that they hold are told.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    print(f"{environment('jax', 'jaxlib', 'torch')}, {jax.devices()[0].device_kind}, {name}, tensorfloat32\n")
    sizes = " | ".join(f"fit {size} GB" for size in gigabytes)
    print(f"| method | images | ours, ms | PyTorch, ms | speed, ours / PyTorch | fixed, MB | an image, MB | {sizes} |")
    print("|" + "---|" * (7 + len(gigabytes)), flush=True)
    for kind, usual in METHODS.items():
        size = (height, height // 3 if kind == "mgn" else height // 2)
        still = replace(usual.augmentation, size=size, flip=0.0, pad=0, erase=0.0, mean=MEAN, std=STD)
        settings = replace(usual, batch=batch, instances=4, image_size=size, augmentation=still)
        settings = replace(settings, precision="tensorfloat32")
        method = method_of(name, settings)
        state, step = ours(method)
        theirs = rival(name, kind, method, state, device)
        inputs = batch_of(settings)
        values = method.values_at(settings.epochs // 2, 0, 1)
        pixels = (np.asarray(inputs.images[0]) / 255 - np.array(MEAN)) / np.array(STD)
        images = torch.from_numpy(pixels.astype(np.float32)).to(device)
        labels = torch.from_numpy(np.array(inputs.labels[0], np.int64)).to(device)
        turns: dict[str, Callable[[], int]] = {
            "ours": Turn(step, state, inputs, values, steps),
            "PyTorch": partial(turn, theirs, images, labels, values, steps),
        }
        speeds = rates(turns, rounds)
        ratio = median(a / b for a, b in zip(*speeds.values(), strict=True))
        needed = memory(method, 4, make_mesh(1, 1))
        fitting = [str(needed.fits(int(SHARE * size * 1e9))) for size in gigabytes]
        times = [f"{1e3 * batch / median(side):,.0f}" for side in speeds.values()]
        held = [f"{needed.fixed / 1e6:,.0f}", f"{needed.image / 1e6:,.1f}"]
        print(f"| {' | '.join([kind, str(batch), *times, f'{ratio:.2f}', *held, *fitting])} |", flush=True)


def method_of(name: str, settings: Finetuning) -> FinetuningMethod:
    """The method on a fresh backbone, as if for some data."""
    body = backbone(name, image_size=settings.augmentation.size)
    network = network_of(settings, body, CLASSES)
    start = body.init(jax.random.key(0))
    clusters = CLASSES if isinstance(settings, ClusterContrast) else 0
    return FinetuningMethod(settings, network, start, np.arange(CLASSES), None, clusters)


def ours(method: FinetuningMethod) -> tuple[Any, Any]:
    """Our state, with a memory of unit rows where there is one, and the compiled step."""
    mesh = make_mesh(1, 1)
    template = abstract_state(method, mesh)
    state = jax.jit(method.init, out_shardings=shardings_of(template))(jax.random.key(0), method.start)
    if method.clusters:
        rows = jax.random.normal(jax.random.key(1), state.memory.shape)
        unit = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        state = state._replace(memory=jax.device_put(unit, state.memory.sharding))
    return state, jit_step(method, 4, mesh, template)


def batch_of(settings: Finetuning) -> Labelled:
    """Images of noise with labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1, settings.batch, *settings.image_size, 3), np.uint8)
    labels = np.repeat(random.permutation(CLASSES)[: settings.batch // 4], 4).astype(np.int32)[None]
    return Labelled(*jax.device_put((images, labels), batch_sharding(make_mesh(1, 1))))


def rival(name: str, kind: str, method: FinetuningMethod, state: Any, device: torch.device) -> Any:
    """PyTorch's step, with our weights."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    own = {key: torch.from_numpy(np.array(value)) for key, value in plain(Weights(method.model, variables)).items()}
    settings: Any = method.settings
    if kind == "mgn":
        network: Any = mgn(name, CLASSES)
        make: Any = MgnStep
    elif kind == "bnneck":
        body = resnet(name)
        assert isinstance(body, ResNet)
        network, make = bnneck(body, method.model.width(method.model.image_size), CLASSES), BnneckStep
    else:
        network, make = cluster_contrast(name), ClusterContrastStep
    network.load_state_dict(own)
    network = network.to(device)
    if kind == "cluster-contrast":
        rows = torch.from_numpy(np.array(state.memory)).to(device)
        return make(network, ClusterMemory(rows), settings.optimization)
    return make(network, settings.optimization)


class Turn:
    """Our steps, which move a state on."""

    def __init__(self, step: Any, state: Any, inputs: Labelled, values: Any, times: int) -> None:
        self._step = step
        self._state = state
        self._inputs = inputs
        self._values = jax.device_put(values, replicated(make_mesh(1, 1)))
        self._times = times

    def __call__(self) -> int:
        for _ in range(self._times):
            self._state, metrics = self._step(self._state, self._inputs, self._values)
        jax.block_until_ready(metrics)
        return self._times * self._inputs.labels.size


def turn(step: Any, images: Any, labels: Any, values: Any, times: int) -> int:
    """Images that PyTorch's steps have seen."""
    for _ in range(times):
        step(images, labels, values)
    if images.is_cuda:
        torch.cuda.synchronize()
    return times * len(labels)


if __name__ == "__main__":
    command(main)
