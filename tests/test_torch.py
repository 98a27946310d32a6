"""Exported weights in PyTorch itself, in a ResNet that is defined here anew. Skipped where PyTorch is not installed."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cion_jax.models.zoo import backbone
from cion_jax.weights.foreign import write_state
from cion_jax.weights.mapping import from_state_dict, state_dict
from golden_weights import images, state

torch = pytest.importorskip("torch")
nn = torch.nn


class Block(nn.Module):  # type: ignore[misc, name-defined]
    """As torchvision defines and names it."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        if not bottleneck:
            sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        for number, (a, b, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{number}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(b))
        self.count = len(sizes)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):  # type: ignore[no-untyped-def]
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = torch.relu(y) if number < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):  # type: ignore[misc, name-defined]
    """With the last stage at stride 1, and without a classifier."""

    def __init__(self, depths: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                stride = 2 if number == 0 and stage in (1, 2) else 1
                blocks.append(Block(inputs, 64 << stage, stride, bottleneck))
                inputs = (256 if bottleneck else 64) << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


@pytest.mark.parametrize(("name", "depths"), [("resnet18", (2, 2, 2, 2)), ("resnet50", (3, 4, 6, 3))])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_resnet_loads_strictly_and_computes_the_same(
    name: str, depths: tuple[int, ...], suffix: str, tmp_path: Path
) -> None:
    ours = backbone(name)
    variables = from_state_dict(ours.shapes(), state(name))
    path = tmp_path / f"weights.{suffix}"
    write_state(path, state_dict(variables, ours.order))
    if suffix == "pth":
        loaded = torch.load(path, weights_only=True)
    else:
        loaded = pytest.importorskip("safetensors.torch").load_file(path)
    theirs = ResNet(depths, bottleneck=name == "resnet50")
    assert str(theirs.load_state_dict(loaded, strict=True)) == "<All keys matched successfully>"
    small = images()[1]
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(small.transpose(0, 3, 1, 2))).numpy()
    features = np.asarray(jax.jit(ours.apply)(variables, small))
    assert np.abs(features - expected).max() / np.sqrt(np.mean(expected**2)) < 1e-4
