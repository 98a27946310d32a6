"""Optimizers and schedules of fine-tuning, with the published values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BnneckOptimization:
    """SGD with momentum 0.9, and its schedule, for the method bnneck."""

    learning_rate: float = 4e-4
    """Peak for 64 images in a batch; it grows in proportion with the batch."""
    bias_factor: float = 2.0
    """The peak of biases, as a multiple of the learning rate."""
    warmup: float = 20
    """Epochs in which the learning rate rises."""
    warmup_start: float = 0.01
    """Where it rises from, as a share of the learning rate; the same for biases."""
    cosine_end: float = 0.002
    """Where the cosine ends, as a share of the learning rate; the same for biases."""
    weight_decay: float = 1e-4
    """Added to the gradient of every parameter, norms and biases too."""


@dataclass(frozen=True)
class MgnOptimization:
    """Adam, and its schedule, for the method mgn."""

    learning_rate: float = 3.5e-4
    """Peak; it does not depend on the batch."""
    learning_rate_end: float = 7.7e-7
    """Where the learning rate ends."""
    warmup: float = 10
    """Epochs in which the learning rate rises."""
    warmup_start: float = 0.01
    """Where it rises from, as a share of the learning rate."""
    cosine_start: float = 30
    """The epoch at which it begins to fall."""
    frozen: float = 10
    """Epochs at the start in which trunk and branches stand still, and one step more."""
    weight_decay: float = 5e-4
    """Added to the gradient of every parameter, norms and biases too."""


@dataclass(frozen=True)
class ClusterContrastOptimization:
    """SGD with momentum 0.9, and its schedule, for the method cluster-contrast."""

    learning_rate: float = 3.5e-4
    """At the start; it does not depend on the batch."""
    drops: tuple[int, ...] = (20, 40)
    """Epochs at which the learning rate drops."""
    drop_factor: float = 0.1
    """What a drop leaves of it."""
    weight_decay: float = 5e-4
    """Added to the gradient of every parameter, norms and biases too."""
