"""Files of weights that others wrote, imported: are the features those of their own framework?

pip install -e '.[timm]' && python -m experiments.benchmarks.foreign

Each network is made in PyTorch with random weights and saved in one of the ways in which people save; the file is read
by what `cion import` calls, without PyTorch. Both then see the same images in float64. ResNets have a last stage of
stride 1 there, too.
"""

import datetime
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cion_jax.errors import UserError
from cion_jax.weights.file import convert
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment

_SIZE = (64, 32)
_WINDOWS = {"window_size": 8, "img_size": _SIZE, "always_partition": True}


@dataclass(frozen=True)
class Case:
    """A network of timm or torchvision, how its file is saved, and how it is imported."""

    kind: str
    """What is special of the file."""
    theirs: str
    ours: str
    content: Callable[[dict[str, Any]], Any] = dict
    """What is saved, made of the state_dict."""
    options: dict[str, Any] = field(default_factory=dict)
    """Those of the network."""
    saving: dict[str, Any] = field(default_factory=dict)
    """Those of torch.save."""
    importing: dict[str, Any] = field(default_factory=dict)
    """Those of `cion import`."""
    suffix: str = ".pth"


def _under(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def _momentum_contrast(state: dict[str, Any]) -> dict[str, Any]:
    other = {key: value + 1 for key, value in state.items()}
    return {"epoch": 9, "state_dict": _under("module.encoder_q.")(state) | _under("module.encoder_k.")(other)}


def _beside_odd_values(state: dict[str, Any]) -> dict[str, Any]:
    lists: defaultdict[str, list[int]] = defaultdict(list)
    lists["a"].append(1)
    odd = {"scores": np.arange(3.0), "lists": lists, "seen": {1, 2}, "when": datetime.datetime(2020, 1, 1)}
    return {"net": {f"base.{key}": value for key, value in state.items()}, **odd}


CASES = (
    Case("torchvision's state_dict", "torchvision/resnet50", "resnet50"),
    Case(
        "the format before torch 1.6",
        "torchvision/resnet18",
        "resnet18",
        saving={"_use_new_zipfile_serialization": False},
    ),
    Case(
        "two encoders; --strip module.encoder_q.",
        "torchvision/resnet18",
        "resnet18",
        _momentum_contrast,
        importing={"strip": "module.encoder_q."},
    ),
    Case("net, keys base.*, beside odd values", "timm/resnet18", "resnet18", _beside_odd_values),
    Case("timm's state_dict", "timm/convnext_tiny", "convnext_tiny"),
    Case(
        "two state_dicts; --key state_dict_ema",
        "timm/convnext_tiny",
        "convnext_tiny",
        lambda state: {"state_dict": {key: value * 2 for key, value in state.items()}, "state_dict_ema": state},
        importing={"key": "state_dict_ema"},
    ),
    Case("keys module._orig_mod.*", "timm/edgenext_x_small", "edgenext_x_small", _under("module._orig_mod.")),
    Case("model_ema", "timm/fastvit_s12", "fastvit_s12", lambda state: {"model_ema": state, "epoch": 1}),
    Case("timm's state_dict", "timm/fastvit_sa12", "fastvit_sa12"),
    Case(
        "windows of 8x8; safetensors",
        "timm/swin_tiny_patch4_window7_224",
        "swin_tiny",
        options=_WINDOWS,
        suffix=".safetensors",
    ),
    Case("model_state_dict", "timm/ghostnet_100", "ghostnet_1_0", lambda state: {"model_state_dict": state}),
    Case("timm's state_dict", "timm/volo_d1_224", "volo_d1", options={"img_size": _SIZE}),
    Case("timm's state_dict", "timm/vit_tiny_patch16_224", "vit_tiny"),
    Case("timm's state_dict", "timm/repvit_m0_9", "repvit_m0_9"),
    Case("windows of 7x7", "timm/swin_tiny_patch4_window7_224", "swin_tiny"),
)


def main(images: int = 2, only: tuple[str, ...] = ()) -> int:
    """Print a table of the differences between their features and ours; ends with code 1 if one is above 1e-4.

    Args:
        images: How many images both see.
        only: Our names of the backbones to try; without any, all.
    """
    import torch

    jax.config.update("jax_enable_x64", True)
    torch.manual_seed(0)
    print(f"{environment('jax', 'torch', 'torchvision', 'timm')}\n")
    print("| network | file | largest difference of features, in their RMS |\n|---|---|---|")
    pixels = np.random.RandomState(0).standard_normal((images, *_SIZE, 3))
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for case in (case for case in CASES if case.ours in (only or [case.ours])):
            network = _network(case)
            path = _saved(case, network, Path(folder) / f"weights{case.suffix}")
            try:
                difference = _difference(case, path, network, pixels)
                worst = max(worst, difference)
                outcome = f"{difference:.1e}"
            except UserError as error:
                outcome = f"refused: {str(error).split(': ', 1)[1].split('; ')[0]}"
            print(f"| {case.theirs} | {case.kind} | {outcome} |", flush=True)
    return 1 if worst > 1e-4 else 0


def _network(case: Case) -> Any:
    """The network with random weights, of which none is so small that a branch would not be seen."""
    import timm
    import torch
    import torchvision

    library, name = case.theirs.split("/")
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    network = make(name, **case.options).double().eval()
    with torch.no_grad():
        for key, value in (*network.named_parameters(), *network.named_buffers()):
            if key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif "gamma" in key:
                value.fill_(0.5)
            elif value.ndim == 1 and value.is_floating_point():
                value.normal_(1.0 if key.endswith("weight") else 0.0, 0.1)
    return network


def _saved(case: Case, network: Any, path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    state = {key: value.float() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    network.load_state_dict(state)  # so that both have the same rounded numbers
    if case.suffix == ".safetensors":
        save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    else:
        torch.save(case.content(state), path, **case.saving)
    return path


def _difference(case: Case, path: Path, network: Any, pixels: np.ndarray) -> float:
    import torch

    weights, _ = convert(path, case.ours, image_size=_SIZE, **case.importing)
    ours = np.asarray(jax.jit(weights.network.apply)(weights.variables, pixels))
    if hasattr(network, "layer4"):
        for module in network.layer4[0].modules():
            if isinstance(module, torch.nn.Conv2d):
                module.stride = (1, 1)
    with torch.no_grad():
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        if hasattr(network, "forward_head"):
            features = network.forward_head(network.forward_features(images), pre_logits=True).numpy()
        else:
            network.fc = torch.nn.Identity()
            features = network(images).numpy()
    return float(np.abs(ours - features).max() / np.sqrt(np.mean(features**2)))


if __name__ == "__main__":
    command(main)
