"""Record what timm's networks compute, for tests/test_timm_names.py, which then needs neither timm nor PyTorch.

pip install -e '.[timm]' && PYTHONPATH=tests/support python -m experiments.timm_golden tests/golden/timm.json

Networks are timm's with few layers. Weights follow from their keys by the rule of tests/support/golden_weights.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from cion_jax.atomic import write_atomically
from experiments.benchmarks.command import command
from golden_weights import weight  # type: ignore[import-not-found]  # of the tests

SIZE = (64, 32)
_WINDOWS = {"window_size": 8, "img_size": SIZE, "always_partition": True}
#: By a name of timm: its options, our name and our options.
NETWORKS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "convnext_tiny": (
        {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128)},
        "convnext_tiny",
        {"depths": (1, 1, 2, 1), "width": 16},
    ),
    "edgenext_x_small": ({"depths": (1, 2, 2, 1)}, "edgenext_x_small", {"depths": (1, 2, 2, 1)}),
    "fastvit_s12": ({"layers": (1, 1, 2, 1)}, "fastvit_s12", {"depths": (1, 1, 2, 1)}),
    "fastvit_sa12": ({"layers": (1, 1, 1, 2)}, "fastvit_sa12", {"depths": (1, 1, 1, 2)}),
    "swin_tiny_patch4_window7_224": (
        {"depths": (2, 1, 2, 2), "embed_dim": 48, **_WINDOWS},
        "swin_tiny",
        {"depths": (2, 1, 2, 2), "width": 48},
    ),
}


def main(out: Positional[Path]) -> int:
    """Write for each network its keys and shapes, and its features of two images.

    Args:
        out: The JSON file to write.
    """
    import timm
    import torch

    images = np.random.RandomState(0).standard_normal((2, *SIZE, 3))
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    recorded = {}
    for name, (options, ours, our_options) in NETWORKS.items():
        network = timm.create_model(name, num_classes=7, **options).double().eval()
        state = network.state_dict()
        floats = {key: value for key, value in state.items() if value.is_floating_point()}
        filled = {key: torch.from_numpy(weight(key, tuple(value.shape))).double() for key, value in floats.items()}
        network.load_state_dict(state | filled)
        with torch.no_grad():
            features = network.forward_head(network.forward_features(pixels), pre_logits=True).numpy()
        recorded[name] = {
            "ours": ours,
            "options": our_options,
            "keys": [[key, list(value.shape)] for key, value in floats.items()],
            "features": features.round(9).tolist(),
        }
    text = json.dumps({"timm": timm.__version__, "size": SIZE, "networks": recorded})
    write_atomically(out, lambda path: path.write_text(text + "\n"))
    return 0


if __name__ == "__main__":
    command(main)
