"""Forward and backward of ResNet-50 with the last stride of 1 that ReID uses, ours and in PyTorch, side by side.

pip install -e '.[torch]' && python -m experiments.benchmarks.backbone
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.models.zoo import backbone
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, rates, table


def main(batch: int = 24, height: int = 256, rounds: int = 7, precision: str = "float32", settle: int = 2) -> None:
    """Time both in turns, in training mode, to the gradients of all parameters; on a GPU if there is one.

    Args:
        batch: Images.
        height: Of images; they are half as wide.
        rounds: How often each has its turn; the printed figures are medians.
        precision: float32 or bfloat16, which PyTorch gets by autocast.
        settle: Steps at the start of a turn that do not count, only the one after them: memory that lay unused for
            seconds, while the other had its turn, may have to be found again, which is not so in training.
    """
    images = np.random.default_rng(0).standard_normal((batch, height, height // 2, 3), np.float32)
    print(f"{environment('jax', 'torch')}, {jax.devices()[0].device_kind}")
    print(f"{batch} images of {height}x{height // 2}, {precision}\n")
    contestants = {
        "ours, one XLA program": _ours(images, precision),
        "PyTorch, channels last": _torch(images, precision),
    }
    print(table(rates(contestants, rounds, settle), "images/s"))


def _ours(images: np.ndarray, precision: str) -> Callable[[], int]:
    model = backbone("resnet50", image_size=images.shape[1:3])
    variables = jax.jit(model.init)(jax.random.key(0))

    @jax.jit
    def gradients(params: Any, statistics: Any, images: jax.Array) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            features, after = model.apply({"params": params, "batch_stats": statistics}, images, train=True)
            return jnp.square(features.astype(jnp.float32)).sum(), after["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    on_device = jnp.asarray(images, precision)

    def work() -> int:
        jax.block_until_ready(gradients(variables["params"], variables["batch_stats"], on_device))
        return len(images)

    return work


def _torch(images: np.ndarray, precision: str) -> Callable[[], int]:
    torch: Any = importlib.import_module("torch")
    contestant: Any = importlib.import_module("experiments.benchmarks.torch_backbones")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = contestant.ResNet((3, 4, 6, 3)).to(device, memory_format=torch.channels_last)
    on_device = torch.from_numpy(images).permute(0, 3, 1, 2).to(device, memory_format=torch.channels_last)

    def work() -> int:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            features = model(on_device)
        features.float().square().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return len(images)

    return work


if __name__ == "__main__":
    command(main)
