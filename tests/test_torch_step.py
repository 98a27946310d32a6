"""PyTorch's step, which ours is timed beside, is ours: from the same state and crops to the same state.

In double precision, where nothing can hide behind rounding: Adam's first steps divide noise by noise.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.config import Crops, Head, Optimization, Pretraining
from cion_jax.models import ghostnet, head
from cion_jax.models.zoo import ZOO, Backbone, backbone
from cion_jax.pretrain.schedules import StepValues
from cion_jax.pretrain.state import TrainState, backbone_variables, state_from
from cion_jax.pretrain.step import StepConfig, Views, gradients, update
from cion_jax.run.sharding import make_mesh
from cion_jax.weights.file import Weights, prefixed
from experiments.benchmarks.options import StepOptions
from experiments.benchmarks.step import AUGMENT, HEAD, STUDENT, TEACHER, UPDATE, WHOLE
from tiny import FAMILY

torch = pytest.importorskip("torch")

from experiments.benchmarks import gpu as bench_gpu  # noqa: E402
from experiments.benchmarks import torch_backbones, torch_resnets, torch_step  # noqa: E402

nn = torch.nn

SETTINGS = Pretraining(
    batch=4,
    image_size=(64, 32),
    crops=Crops(global_size=(64, 32), local_size=(32, 16)),
    head=Head(prototypes=96, hidden=32, bottleneck=16, block=40),
    optimization=Optimization(clip=1.0),
    precision="float32",
)
GHOSTS = ghostnet.TABLE[0], ghostnet.TABLE[3]
#: The sizes of ours, and the same network in PyTorch. Nobody drops paths.
SMALL: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "resnet50_ibn": (
        {"depths": (0, 1, 0, 1), "width": 4},
        partial(torch_resnets.ResNet, (0, 1, 0, 1), ibn=True, width=4),
    ),
    "vit_small": ({"width": 16, "heads": 2, "depth": 1}, partial(torch_backbones.ViT, 16, 2, 1, (64, 32))),
    "swin_tiny": (
        {"width": 8, "depths": (2, 1), "heads": (2, 4), "drop_path": 0.0},
        partial(torch_backbones.Swin, 8, (2, 1), (2, 4)),
    ),
    "convnext_tiny": ({"depths": (1, 1), "width": 8}, partial(torch_backbones.ConvNeXt, (1, 1), 8)),
    "ghostnet_1_0": ({"width": 0.5, "table": GHOSTS}, partial(torch_backbones.GhostNet, 0.5, GHOSTS)),
}


@pytest.mark.parametrize("name", bench_gpu.ROWS)
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    manifest = json.loads((Path(__file__).parent / "manifest" / f"{name}.json").read_text())
    shapes = {key: list(value.shape) for key, value in torch_backbones.BACKBONES[name]().state_dict().items()}
    assert shapes == {key: shape for key, shape, *_ in manifest["keys"]}


def drawn(shapes: Any, seed: int) -> Any:
    """Parameters of double precision: fresh ones have zeros and ones, which would hide mistakes."""
    random = np.random.default_rng(seed)

    def draw(path: Any, shape: Any) -> np.ndarray:
        name = path[-1].key
        noise = 0.2 * random.standard_normal(shape.shape)
        return np.ones(shape.shape) if name == "weight_g" else noise + (name in ("scale", "gamma"))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def state_of(model: Backbone, width: int) -> TrainState:
    """A teacher that differs from its student, and a center that is not zero."""
    body = model.shapes()
    shape = SETTINGS.head
    sizes = (width, shape.prototypes, shape.hidden, shape.bottleneck)
    top = jax.eval_shape(lambda key: head.init(key, *sizes), jax.random.key(0))
    shapes = {"backbone": body["params"], "head": top["params"]}
    student, teacher = drawn(shapes, 0), drawn(shapes, 1)
    statistics = jax.tree.map(lambda leaf: np.ones(leaf.shape), body.get("batch_stats", {}))
    variables = backbone_variables(student, statistics)
    state = state_from(variables, {"params": student["head"]}, SETTINGS.optimization)
    return state._replace(teacher=teacher, center=0.01 * np.arange(shape.prototypes))


def exported(model: Backbone, state: TrainState, part: str) -> dict[str, Any]:
    params = getattr(state, part)
    weights = Weights(model, backbone_variables(params, state.batch_stats[part]), {"params": params["head"]})
    return {key: torch.from_numpy(np.array(value)) for key, value in prefixed(weights, "backbone.", "head.").items()}


def stepper(config: StepConfig) -> Any:
    """Our step on given crops."""

    @jax.jit
    def step(state: TrainState, crops: Views, values: StepValues) -> Any:
        parts = jax.tree.map(lambda leaf: leaf[None], crops)
        *changes, metrics = gradients(config, state, parts, lambda part, _: (part, jax.random.key(0)))
        return update(config.settings.optimization, state, *changes, values), metrics["loss"]

    return step


def noise(seed: int, settings: Pretraining) -> Any:
    random = np.random.default_rng(seed)
    crops = settings.crops
    sizes = (2, *crops.global_size), (crops.local_crops, *crops.local_size)
    return tuple(random.standard_normal((settings.batch, *size, 3)) for size in sizes)


def relative_error(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(np.asarray(actual) - np.asarray(expected)) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    ("name", "instances", "local_crops"),
    [
        ("resnet50_ibn", 2, 0),
        ("vit_small", 1, 2),
        ("swin_tiny", 2, 0),
        ("convnext_tiny", 2, 0),
        ("ghostnet_1_0", 1, 0),
    ],
)
def test_three_steps_are_ours(name: str, instances: int, local_crops: int) -> None:
    settings = replace(SETTINGS, crops=replace(SETTINGS.crops, local_crops=local_crops))
    with jax.enable_x64(True):
        model = backbone(name, image_size=(64, 32), **SMALL[name][0])
        network = torch_step.Network(SMALL[name][1](), settings.head).double()
        theirs = torch_step.Step(network, settings, instances)
        ours = stepper(StepConfig(settings, model, instances, make_mesh(1, 1)))
        state = state_of(model, network.backbone.outputs)
        for part in ("student", "teacher"):
            getattr(theirs, part).load_state_dict(exported(model, state, part), strict=True)
        theirs.center.copy_(torch.from_numpy(state.center))
        for number, frozen in enumerate((True, False, False)):
            values = StepValues(1e-3, 0.1, 0.01, frozen)
            crops = noise(number, settings)
            before = state
            state, loss = ours(state, crops, values)
            assert relative_error(theirs(tuple(map(torch.from_numpy, crops)), values), loss) < 1e-9
            assert relative_error(theirs.center, state.center) < 1e-9
            for part in ("student", "teacher"):
                expected = exported(model, state, part)
                old = exported(model, before, part)
                for key, value in getattr(theirs, part).state_dict().items():
                    is_frozen = key == "head.last_layer.weight_v" and part == "student" and frozen
                    assert key.endswith(("num_batches_tracked", "index", "weight_g")) or is_frozen == torch.equal(
                        expected[key], old[key]
                    ), key
                    if not key.endswith("num_batches_tracked"):
                        assert relative_error(value, expected[key]) < 1e-7, (part, key)
            if not number:
                norms = [10 * float(moments["exp_avg"].norm()) for moments in theirs.optimizer.state.values()]
                assert min(norms) < 0.9 and max(norms) == pytest.approx(1, rel=1e-5)  # some are clipped
        assert not any(parameter.requires_grad for parameter in theirs.teacher.parameters())


def test_a_teacher_keeps_every_branch() -> None:
    network = torch_step.Network(torch_backbones.Swin(8, (2, 1), (2, 4), drop_path=0.5), SETTINGS.head)
    step = torch_step.Step(network, SETTINGS, 1)
    views = torch.randn(4, 2, 64, 32, 3)
    assert torch.equal(step.teacher(views), step.teacher(views))
    assert not torch.equal(step.student(views), step.student(views))


class Tiny(nn.Module):  # type: ignore[misc, name-defined]
    """The backbone of `tiny`, without drop path."""

    outputs = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 4, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block = nn.Sequential()
        self.block.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.block.bn2 = nn.BatchNorm2d(8)

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.bn1(self.conv1(x)).relu()
        return (x + self.block(x).relu()).mean((2, 3))


def test_the_benchmark_prints_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    monkeypatch.setitem(torch_backbones.BACKBONES, "tiny", partial(Tiny))
    monkeypatch.setattr(bench_gpu, "alone", lambda work, *given: work(*given))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")  # it would set it for good
    path = tmp_path / "own.py"
    path.write_text("from tiny import SETTINGS as settings\n")
    bench_gpu.main((str(path),), StepOptions(batch=8, local_crops=0, rounds=1))
    rows = [line[2:-2].split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows[:3]] == [13, 13, 13]
    assert [row[:3] for row in rows[1:3]] == [[str(path), "8", "crops"], [str(path), "8", "images"]]
    assert all(float(row[-1].split()[0]) > 0 and row[-2] == "eager" for row in rows[1:3])
    assert [row[0] for row in rows[4:]] == [WHOLE, AUGMENT, TEACHER, STUDENT, HEAD, UPDATE]
    assert all(float(row[4]) >= 0 and row[6] in ("operations", "bytes") for row in rows[4:])
