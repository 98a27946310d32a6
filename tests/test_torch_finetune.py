"""PyTorch's side of fine-tuning is the published one, and weights that we export are weights to it.

Its names, features, losses and steps equal those recorded of the published code, in double precision. Weights that ours
makes of its own variables load strictly and give our features.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import pytest

from cion_jax.config import MEAN, STD, BnneckOptimization, ClusterContrastOptimization, MgnOptimization
from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.finetune.encoder import encoder
from cion_jax.finetune.mgn import mgn
from cion_jax.finetune.network import Finetuned
from cion_jax.finetune.schedules import BnneckValues, ClusterContrastValues, MgnValues
from cion_jax.models.zoo import backbone
from cion_jax.weights.finetuned import with_pixels
from cion_jax.weights.mapping import from_state_dict, state_dict
from finetune_golden import blocks, close, rule_state
from golden_weights import golden, images, manifest, weight

torch = pytest.importorskip("torch")

from experiments.benchmarks import torch_backbones, torch_finetune  # noqa: E402

MGN = "mgn_resnet50_ibn"
ENCODER = "ccontrast_resnet_ibn50a"
RESNET = "transreid_resnet18_ibn"
VIT = "transreid_vit_small"
#: The networks of the manifests.
NETWORKS: dict[str, Callable[[], Any]] = {
    RESNET: lambda: torch_finetune.bnneck(torch_finetune.resnet("resnet18_ibn"), 512, 20),
    VIT: lambda: torch_finetune.bnneck(torch_backbones.BACKBONES["vit_small"](), 384, 20),
    MGN: lambda: torch_finetune.mgn("resnet50_ibn", 20),
    ENCODER: lambda: torch_finetune.cluster_contrast("resnet50_ibn"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_shapes_and_what_is_frozen_are_the_published_ones(name: str) -> None:
    rows = [tuple(row[:2]) for row in manifest(f"finetune/{name}")["keys"]]
    frozen = {key for key, _, _, kind in manifest(f"finetune/{name}")["keys"] if kind == "frozen_param"}
    with torch.device("meta"):
        network = NETWORKS[name]()
    shapes = [(key, list(value.shape)) for key, value in network.state_dict().items()]
    assert dict(shapes) == dict(rows) and (name == VIT or shapes == rows)  # in their order too
    assert {key for key, value in network.named_parameters() if not value.requires_grad} == frozen
    assert all(key.endswith("bias") for key in frozen) and len(frozen) == (8 if name == MGN else 1)


#: Ours.
OURS: dict[str, Callable[[], Finetuned]] = {
    RESNET: lambda: BNNeck(backbone("resnet18_ibn"), 20),
    VIT: lambda: BNNeck(backbone("vit_small"), 20),
    MGN: lambda: mgn(backbone("resnet50_ibn"), 20),
    ENCODER: lambda: encoder(backbone("resnet50_ibn")),
}


def load(network: Any, ours: Finetuned, variables: Any) -> None:
    """Our variables into a network of PyTorch."""
    state = with_pixels(ours, state_dict(variables, ours.order))
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, strict=True)


def loaded(name: str, hashed: Callable[[str], str]) -> Any:
    """The network in double precision with weights by the rule, by way of our own variables and their export."""
    weights = {key: value for key, value in rule_state(f"finetune/{name}", hashed).items() if "pixel_" not in key}
    ours = OURS[name]()
    network = NETWORKS[name]()
    load(network, ours, from_state_dict(ours.shapes(), weights))
    return network.double().eval().to(memory_format=torch.channels_last)  # faster


def as_loaded(name: str) -> Callable[[str], str]:
    """The key that a weight has in the backbone, if it is loaded from there."""
    return lambda key: manifest(f"finetune/{name}")["loaded_from"][key] or key


def without_base(key: str) -> str:
    return key.removeprefix("base.")


def channels_first(values: np.ndarray) -> Any:
    return torch.from_numpy(values.astype(np.float64)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", [RESNET, VIT])
def test_features_of_bnneck_are_the_recorded_ones(name: str) -> None:
    network = loaded(name, without_base)
    recorded = golden(f"finetune/{name}")
    with torch.no_grad():
        features = network(channels_first(images()[0]))
        close(features, recorded["eval_before_f64"], 1e-6)
        close(network.bottleneck(features), recorded["eval_after_f64"], 1e-6)


def test_features_of_mgn_are_the_recorded_ones() -> None:
    """The published network normalises, in double precision when this was recorded; it takes grey levels."""
    grey = (np.random.RandomState(210).random_sample((2, 384, 128, 3)) * 255).astype(np.float32)
    network = loaded(MGN, str)
    for buffer, values in ((network.pixel_mean, MEAN), (network.pixel_std, STD)):
        exact = 255 * torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        torch.testing.assert_close(buffer, exact, rtol=1e-7, atol=0)
        buffer.copy_(exact)
    with torch.no_grad():
        features = network(channels_first(grey))
    close(features, golden(f"finetune/{MGN}")["eval_feat_f64"], 1e-6)


def test_features_of_the_encoder_are_the_recorded_ones() -> None:
    with torch.no_grad():
        features = loaded(ENCODER, as_loaded(ENCODER))(channels_first(images()[0]))
    close(features, golden(f"finetune/{ENCODER}")["eval_f64"], 1e-6)


LABELS = torch.from_numpy(golden("finetune/losses")["targets"])


def circle(features: Any, rows: Any) -> Any:
    return torch_finetune.smoothed_cross_entropy(torch_finetune.circle_logits(features, rows, LABELS), LABELS)


def triplet(features: Any) -> Any:
    return torch_finetune.triplet_loss(features, LABELS)


#: Each recorded loss, and the names of its inputs.
LOSSES: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "fr_ce_eps01": (lambda logits: torch_finetune.smoothed_cross_entropy(logits, LABELS), ["logits"]),
    "fr_circle_ce": (circle, ["feat", "weight"]),
    "fr_circle_ce2": (circle, ["feat_circle2", "weight"]),
    "fr_triplet_soft": (triplet, ["feat"]),
    "fr_triplet_soft_dup": (triplet, ["feat_dup"]),
    "tr_triplet_soft": (triplet, ["feat"]),
    "tr_triplet_soft_dup": (triplet, ["feat_dup"]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_the_recorded_ones(name: str) -> None:
    recorded = golden("finetune/losses")
    loss, inputs = LOSSES[name]
    values = [torch.from_numpy(recorded[key]).double().requires_grad_() for key in inputs]
    result = loss(*values)
    np.testing.assert_allclose(result.item(), recorded[f"{name}_f64"], rtol=1e-9)
    for number, gradient in enumerate(torch.autograd.grad(result, values)):
        close(gradient, recorded[f"{name}_grad{number}_f64"], 1e-7)


@pytest.mark.parametrize("name", ["plain", "hard"])
def test_the_memory_follows_as_recorded(name: str) -> None:
    recorded = golden("finetune/cluster_memory")
    centers = torch.nn.functional.normalize(torch.from_numpy(recorded["centers"]).double())
    rows = torch.cat([centers, torch.zeros(3, 32)])  # three that are no clusters
    memory = torch_finetune.ClusterMemory(rows, hard=name == "hard")
    for number, (features, labels) in enumerate(zip(recorded["inputs"], recorded["targets"], strict=True)):
        features = torch.from_numpy(features).double().requires_grad_()
        labels = torch.from_numpy(labels)
        loss = memory.loss(features, labels)
        (gradient,) = torch.autograd.grad(loss, features)
        memory.update(features, labels)
        np.testing.assert_allclose(loss.item(), recorded[f"{name}_loss_f64"][number], rtol=1e-6)
        close(gradient, recorded[f"{name}_grad_f64"][number], 1e-6)
        close(memory.rows[:12], recorded[f"{name}_features_f64"][number], 1e-6)
    assert not memory.rows[12:].any()


class Steps:
    """Steps of ours in PyTorch, compared with what is recorded of a published run.

    Names in the file have a prefix. Of parameters, gradients and changes only lengths are kept.
    """

    def __init__(self, step: Any, recorded: dict[str, np.ndarray], prefix: str = "") -> None:
        self.step = step
        self.recorded = recorded
        self.prefix = prefix
        self.number = -1
        step.optimizer.register_step_pre_hook(self.measure_gradients)

    def measure_gradients(self, *_: Any) -> None:
        """Just before the optimizer uses them; what is frozen has none."""
        named = self.step.network.named_parameters()
        self.gradients = {key: 0.0 if value.grad is None else value.grad.norm().item() for key, value in named}

    def __call__(self, batch: np.ndarray, values: Any) -> dict[str, float]:
        """One step: its losses by name."""
        self.number += 1
        network = self.step.network
        before = {key: value.detach().clone() for key, value in network.named_parameters()}
        labels = torch.from_numpy(self.recorded["targets"])
        losses = self.step(torch.from_numpy(batch.astype(np.float64)), labels, values)
        self.norms = {key: value.norm().item() for key, value in network.named_parameters()}
        self.changes = {key: (value - before[key]).norm().item() for key, value in network.named_parameters()}
        running = {key: value.norm().item() for key, value in network.named_buffers() if "running" in key}
        self.check("bn_mean_norm", np.linalg.norm([value for key, value in running.items() if key.endswith("_mean")]))
        self.check("bn_var_norm", np.linalg.norm([value for key, value in running.items() if key.endswith("_var")]))
        return {name: loss.item() for name, loss in losses.items()}

    def check(self, name: str, value: Any) -> None:
        """Against what is recorded of this step."""
        expected = self.recorded[f"{self.prefix}{name}_f64"][self.number]
        tolerance = 1e-9 * np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=tolerance, err_msg=f"{name} at {self.number}")

    def check_parameters(self) -> None:
        """Lengths of each gradient, of all parameters and of their change."""
        names = [str(key) for key in self.recorded[f"{self.prefix}param_names"]]
        assert set(names) <= self.norms.keys()
        self.check("grad_norm_all", [self.gradients[key] for key in names])
        self.check("norm", np.linalg.norm([self.norms[key] for key in names]))
        self.check("delta", np.linalg.norm([self.changes[key] for key in names]))

    def of_groups(self, lengths: dict[str, float]) -> np.ndarray:
        """Of each part of the network."""
        groups = [str(group) for group in self.recorded["groups"]]
        members = [[value for key, value in lengths.items() if key.split(".")[0] == group] for group in groups]
        return np.array([np.linalg.norm(values) for values in members])


def test_three_steps_of_bnneck_are_the_recorded_ones() -> None:
    """The third is in another epoch, where biases have a higher rate."""
    recorded = golden(f"finetune/{RESNET}")
    steps = Steps(torch_finetune.BnneckStep(loaded(RESNET, without_base), BnneckOptimization()), recorded, "traj_")
    for number in range(3):
        rates = BnneckValues(*(recorded[f"traj_lr_{kind}_f64"][number] for kind in ("weight", "bias")))
        losses = steps(blocks(300 + number, recorded["targets"], *recorded["small"]), rates)
        steps.check("ce", losses["cross_entropy"])
        steps.check("triplet", losses["triplet"])
        steps.check("loss", sum(losses.values()))
        steps.check_parameters()
    assert rates.bias_learning_rate > rates.learning_rate


def test_four_steps_of_mgn_across_the_thaw_are_the_recorded_ones() -> None:
    """Trunk and branches stand still in the first two, and Adam begins with them in the third."""
    recorded = golden(f"finetune/trajectory_{MGN}")
    steps = Steps(torch_finetune.MgnStep(loaded(MGN, as_loaded(MGN)), MgnOptimization()), recorded)
    for number in range(4):
        frozen = bool(recorded["frozen_f64"][number])
        grey = (127.5 + 60 * blocks(340 + number, recorded["targets"], 96, 32, np.float64)).astype(np.float32)
        batch = (grey.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
        losses = steps(batch, MgnValues(recorded["lr_f64"][number], frozen))
        steps.check("losses", [losses[str(name).removeprefix("loss_")] for name in recorded["loss_names"]])
        steps.check("total", sum(losses.values()))
        steps.check("group_delta", steps.of_groups(steps.changes))
        steps.check("group_norm", steps.of_groups(steps.norms))
        still = np.array([frozen and group in torch_finetune.PRETRAINED for group in recorded["groups"]])
        gradients = steps.of_groups(steps.gradients)
        steps.check("group_grad", np.where(still, recorded["group_grad_f64"][number], gradients))
        assert still.any() == (number < 2) and not gradients[still].any()


def test_three_steps_of_cluster_contrast_are_the_recorded_ones() -> None:
    recorded = golden(f"finetune/{ENCODER}")
    rows = np.random.RandomState(290).standard_normal((6, 2048)).astype(np.float32)
    share = np.float64(np.float32(0.2))  # the published ones are rounded: 0.2 of a row stays, 0.8 is new
    memory = torch_finetune.ClusterMemory(
        torch.nn.functional.normalize(torch.from_numpy(rows).double()), momentum=share / (share + np.float32(0.8))
    )
    network = loaded(ENCODER, as_loaded(ENCODER))
    steps = Steps(torch_finetune.ClusterContrastStep(network, memory, ClusterContrastOptimization()), recorded, "traj_")
    for number in range(3):
        old = memory.rows.clone()
        batch = blocks(320 + number, recorded["targets"], 96, 48)
        losses = steps(batch, ClusterContrastValues(float(recorded["lr"])))
        steps.check("loss", losses["contrast"])
        steps.check("memory_norm_change", (memory.rows - old).norm().item())
        steps.check_parameters()
    close(memory.rows[:, :64], recorded["memory_f64"], 1e-6)


SMALL: dict[str, Any] = {"depths": (1, 1, 2, 1), "width": 8}


def drawn(ours: Finetuned) -> Any:
    """Variables by the golden rule: fresh ones have zeros and ones, which would hide mistakes."""
    template = ours.shapes()
    keys = state_dict(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), template), ours.order)
    return from_state_dict(template, {key: weight(key, value.shape) for key, value in keys.items()})


def compare(ours: Finetuned, network: Any, batch: np.ndarray, given: np.ndarray | None = None) -> None:
    """Features of the same weights; PyTorch may be given other images, which it makes the same."""
    variables = drawn(ours)
    load(network, ours, variables)
    with torch.no_grad():
        theirs = network.eval()(torch.from_numpy(batch if given is None else given).permute(0, 3, 1, 2))
    assert theirs.dtype == torch.float32
    close(jax.jit(ours.apply)(variables, batch), theirs.double().numpy(), 1e-5)


def noise(*size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["resnet18", "resnet50_ibn"])
def test_our_mgn_exported_has_the_same_features_in_pytorch(name: str) -> None:
    """Of grey levels, as it normalises itself; maps of 8 rows do not divide in 3."""
    grey = np.random.default_rng(0).uniform(0, 255, (2, 128, 48, 3)).astype(np.float32)
    batch = ((grey / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    compare(mgn(backbone(name, **SMALL), 7), torch_finetune.mgn(name, 7, **SMALL), batch, grey)


@pytest.mark.parametrize("name", ["resnet18_ibn", "resnet50"])
def test_our_encoder_exported_has_the_same_features_in_pytorch(name: str) -> None:
    compare(encoder(backbone(name, **SMALL)), torch_finetune.cluster_contrast(name, **SMALL), noise(64, 32))


@pytest.mark.parametrize("side", ["before", "after"])
def test_our_bnneck_exported_has_the_same_features_in_pytorch(side: Literal["before", "after"]) -> None:
    network = torch_finetune.bnneck(torch_finetune.resnet("resnet18"), 512, 7)
    searched = network if side == "before" else torch.nn.Sequential(network, network.bottleneck)
    searched.load_state_dict = network.load_state_dict
    compare(BNNeck(backbone("resnet18"), 7, side), searched, noise(64, 32))


def test_swins_tables_of_positions_have_the_rate_of_biases() -> None:
    swin = torch_backbones.Swin(8, (1, 1), (2, 4))
    step = torch_finetune.BnneckStep(torch_finetune.bnneck(swin, 16, 5), BnneckOptimization())
    sizes = [[tuple(each.shape) for each in group["params"]] for group in step.optimizer.param_groups]
    assert (225, 2) in sizes[1] and (225, 2) not in sizes[0]
    assert (5, 16) in sizes[0] and sum(map(len, sizes)) == len(list(step.network.parameters())) - 1


def test_in_half_precision_only_what_lies_before_the_heads_is_rounded() -> None:
    network = torch_finetune.mgn("resnet18", 5, **SMALL)
    seen = {}
    network.b1.register_forward_hook(lambda *call: seen.update(branch=call[-1].dtype))
    network.b1_head.register_forward_hook(lambda *call: seen.update(head=call[-1].dtype))
    step = torch_finetune.MgnStep(network, MgnOptimization(), half=True)
    losses = step(torch.randn(4, 96, 32, 3), torch.tensor([0, 0, 1, 1]), MgnValues(1e-3, False))
    assert seen == {"branch": torch.bfloat16, "head": torch.float32}
    assert len(losses) == 13 and all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_a_resnet_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="resnet34 is not among the ResNets"):
        torch_finetune.mgn("resnet34", 5)
