"""The step of training in PyTorch, tuned for it: `experiments.benchmarks.gpu` times the same mathematics beside ours.

The loss is that of `cion_jax.pretrain.loss` with whole matrix products over all prototypes: what is summed over views
and instances are bottleneck vectors, whose logits are the sums of logits. Precision is ours too: networks compute under
autocast, loss and update in float32. Networks and loss are one graph for torch.compile; gradients are clipped and the
teacher is moved by multi-tensor kernels, and AdamW is the fused one. Maps are channels last.
"""

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from cion_jax.config import Crops, Head, Pretraining
from cion_jax.errors import UserError
from cion_jax.pretrain.schedules import StepValues
from experiments.benchmarks.augment import pillow_views
from experiments.benchmarks.torch_backbones import BACKBONES, DropPath

#: Global crops (B, 2, H, W, 3) and local crops (B, n, h, w, 3), as ours.
Views = tuple[Tensor, Tensor]


class Projection(nn.Module):
    """The projection head: unit bottleneck vectors of features, and the prototypes that they are compared with."""

    def __init__(self, inputs: int, shape: Head) -> None:
        super().__init__()
        widths = (inputs, shape.hidden, shape.hidden, shape.bottleneck)
        first, second, third = (nn.Linear(*pair) for pair in itertools.pairwise(widths))
        self.mlp = nn.Sequential(first, nn.GELU(), second, nn.GELU(), third)
        lengths = nn.Parameter(torch.ones(shape.prototypes, 1), requires_grad=False)
        rows = nn.Parameter(torch.randn(shape.prototypes, shape.bottleneck))
        self.last_layer = nn.ParameterDict({"weight_g": lengths, "weight_v": rows})

    def forward(self, features: Tensor) -> Tensor:
        vectors = self.mlp(features)
        return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)

    def prototypes(self) -> Tensor:
        return torch._weight_norm(self.last_layer["weight_v"], self.last_layer["weight_g"], 0)


class Network(nn.Module):
    """A backbone and its head, under the names that our files of weights have."""

    def __init__(self, backbone: nn.Module, shape: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Projection(backbone.outputs, shape)

    def forward(self, views: Tensor) -> Tensor:
        """Bottleneck vectors (B, V, D) of views (B, V, h, w, 3), which as maps NCHW are channels last already."""
        features = self.backbone(views.flatten(0, 1).permute(0, 3, 1, 2))
        return self.head(features).unflatten(0, views.shape[:2])


def network(settings: Pretraining) -> Network:
    """The network that settings ask for, with PyTorch's own initial weights."""
    if settings.backbone not in BACKBONES:
        raise UserError(f"{settings.backbone} is not among those that we have in PyTorch: {', '.join(BACKBONES)}")
    make = BACKBONES[settings.backbone]
    sized = {"image_size": settings.crops.global_size} if settings.backbone.startswith("vit") else {}
    return Network(make(**sized), settings.head)


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    prototypes: Tensor,
    teacher_prototypes: Tensor,
    center: Tensor,
    instances: int,
    shape: Head,
) -> tuple[Tensor, Tensor]:
    """The loss and the next center, of bottleneck vectors (B, V, D) and (B, 2, D) and of prototypes (C, D).

    An identity's images are `instances` consecutive rows; the first two of the student's views are the teacher's.
    With z the student's vectors, W the prototypes, q the teacher's softmax and M the mean over an identity's instances:

    2 (V-1) B loss = sum_v c_v sum_b lse(z_vb W' / tau) - (1 / tau) sum_u sum_b (q_u W)_b . M(sum_{v != u} z_v)_b
    """
    images, views, _ = student.shape
    with torch.no_grad():
        scaled = teacher / shape.teacher_temperature
        q_Bx2xC = functional.linear(scaled, teacher_prototypes, -center / shape.teacher_temperature).softmax(-1)
        next_center = torch.lerp(teacher_prototypes @ teacher.mean((0, 1)), center, shape.center_momentum)
    # First term: c_v is 1 for the two global views and 2 for the others.
    lse_BxV = functional.linear(student / shape.student_temperature, prototypes).logsumexp(-1)
    first_term = 2 * lse_BxV.sum() - lse_BxV[:, :2].sum()
    # Second term: `others` is the sum over v != u, `mixed` is M of it, whose divisor is part of the weight.
    others = (student.sum(1, keepdim=True) - student[:, :2]).unflatten(0, (-1, instances))
    mixed = instances * others.sum(1, keepdim=True) - (instances - 1) * others
    weight = shape.student_temperature * (instances * (instances - 1) + 1)
    second_term = ((q_Bx2xC @ prototypes).view_as(mixed) * mixed).sum() / weight
    return (first_term - second_term) / (2 * (views - 1) * images), next_center


class Step:
    """Student, teacher, optimizer and center; called with crops and rates it does one step, and returns the loss.

    Args:
        student: The network at its start, on its device; the teacher starts as a copy.
        settings: As for our own step; the optimizer is AdamW in any case.
        instances: K, images of an identity in consecutive rows of the batch.
        compiled: Make one graph of networks and loss by torch.compile.
    """

    def __init__(self, student: Network, settings: Pretraining, instances: int, compiled: bool = False) -> None:
        self.student = student.to(memory_format=torch.channels_last)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        for module in self.teacher.modules():
            if isinstance(module, DropPath):  # a teacher keeps every branch, but has batch statistics of its own
                module.eval()
        self.center = torch.zeros_like(student.head.last_layer["weight_v"][:, 0])
        self._settings = settings
        self._instances = instances
        self._forward = torch.compile(self._loss, dynamic=False, fullgraph=True) if compiled else self._loss
        self._student_parameters = list(self.student.parameters())
        self._teacher_parameters = list(self.teacher.parameters())
        trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        matrices = {"params": [each for each in trained if each.ndim > 1]}
        vectors = {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW([matrices, vectors], fused=True)

    def __call__(self, crops: Views, values: StepValues) -> Tensor:
        loss, self.center = self._forward(crops, self.center)
        loss.backward()
        prototypes = self.student.head.last_layer["weight_v"]
        prototypes.grad = None if values.frozen else prototypes.grad
        gradients = [each.grad for each in self._student_parameters if each.grad is not None]
        clip_each(gradients, self._settings.optimization.clip)
        self.optimizer.param_groups[0]["weight_decay"] = values.weight_decay
        for group in self.optimizer.param_groups:
            group["lr"] = values.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self._teacher_parameters, self._student_parameters, values.ema_step)
        return loss.detach()

    def _loss(self, crops: Views, center: Tensor) -> tuple[Tensor, Tensor]:
        is_half = self._settings.precision == "bfloat16"
        with torch.autocast(center.device.type, torch.bfloat16, enabled=is_half):
            with torch.no_grad():
                teacher = self.teacher(crops[0])
            student = torch.cat([self.student(views) for views in crops if views.shape[1]], 1)
        prototypes = (self.student.head.prototypes(), self.teacher.head.prototypes())
        return distillation_loss(student, teacher, *prototypes, center, self._instances, self._settings.head)


@torch.no_grad()
def clip_each(gradients: list[Tensor], limit: float) -> None:
    """Make each gradient at most so long, by itself; 0 leaves them as they are."""
    if limit:
        lengths = torch.stack(torch._foreach_norm(gradients))
        torch._foreach_mul_(gradients, list((limit / (lengths + 1e-6)).clamp(max=1).unbind()))


class _Crops(Dataset):
    """Crops that Pillow makes of decoded images, as often as asked."""

    def __init__(self, images: np.ndarray, crops: Crops, count: int) -> None:
        self.images = torch.from_numpy(images)  # processes share tensors
        self.crops = crops
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        views = pillow_views(self.images[number % len(self.images)].numpy(), number, self.crops)
        return np.stack(views[:2]), np.asarray(views[2:], np.float32).reshape(-1, *self.crops.local_size, 3)


def published_views(
    images: np.ndarray, crops: Crops, batches: int, workers: int, like: Tensor
) -> Callable[[], Iterator[Views]]:
    """Crops as the published code makes them: one by one on the host, by Pillow in the workers of a DataLoader.

    Each call begins with nothing made ahead, and gives `batches` batches of all the images' crops, on the device and in
    the type of `like`. Each batch is shared by all workers: were each given a whole one, the device would wait for the
    first as long as a single worker takes.
    """
    shares = next(count for count in range(min(workers, len(images)), len(images) + 1) if len(images) % count == 0)
    loader = DataLoader(
        _Crops(images, crops, batches * len(images)),
        batch_size=len(images) // shares,
        num_workers=workers,
        pin_memory=like.device.type == "cuda",
        multiprocessing_context="spawn",  # JAX has threads, and a fork of them would hang
        persistent_workers=True,
    )

    def stream() -> Iterator[Views]:
        made = ([part.to(like.device, like.dtype, non_blocking=True) for part in share] for share in loader)
        for _ in range(batches):
            global_crops, local_crops = zip(*itertools.islice(made, shares), strict=True)
            yield torch.cat(global_crops), torch.cat(local_crops)

    return stream
