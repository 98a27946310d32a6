"""Fine-tuning: its methods, their optimizers and schedules, with the published values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress

from cion_jax.config.augmentation import (
    BNNECK_AUGMENTATION,
    CLUSTER_CONTRAST_AUGMENTATION,
    MGN_AUGMENTATION,
    Augmentation,
)
from cion_jax.config.denoising import Denoising
from cion_jax.config.numbers import IntOrAuto
from cion_jax.config.precision import Precision
from cion_jax.config.pretraining import Training


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


@dataclass(frozen=True)
class Finetuning(Training):
    """What the methods of fine-tuning share."""

    backbone: Annotated[str, Suppress] = "resnet50_ibn"
    """That of the weights."""
    weights: Annotated[Path | None, Suppress] = None
    """What the network begins with; None makes fresh weights."""
    instances: int = 4
    """K, images of an identity in a batch."""
    augmentation: Augmentation = BNNECK_AUGMENTATION
    pixel_scale: Literal["weights", "augmentation"] = "augmentation"
    """Whose mean and std the network sees pixels by: those that its weights were trained with, or augmentation's, as
    published. Weights see another world by another scale, until training has made up for it. Fresh weights have no
    scale of their own and take augmentation's."""
    resample_positions: bool = False
    """Resample a ViT's table of positions at its own size too, as the published fine-tuning does unawares."""
    select: Literal["validation", "test"] = "validation"
    """Which epoch's weights are kept as best.safetensors: the best for those set aside from training, if any are; or
    the best in the test set of --evaluate, as the published adaptation chooses. What was chosen by a test set has a
    score there that flatters it: it says nothing of people who were never looked at."""


@dataclass(frozen=True)
class Supervised(Finetuning):
    """What the methods share that are told who is who."""

    labels: Path | None = None
    """A labelling of the data; without it the identities in the records are used."""
    identities_share: float = 1.0
    """Train with this share of the identities, drawn by the seed."""
    images_share: float = 1.0
    """Train with this share of the images, drawn by the seed; each identity keeps at least one."""
    identities_file: Path | None = None
    """Train with the identities in this file alone, a number in each line."""
    images_file: Path | None = None
    """Train with the images in this file alone, in each line the name of the file that one was imported from; what
    follows a semicolon is not read, so that the published few_ims lists can be given as they are."""
    validation: float = 0.1
    """Set this share of the identities aside, among those that two cameras or more have seen: after epochs they are
    scored, and the weights of the best epoch are kept as best.safetensors. At 0 nothing is set aside or chosen, and
    all identities are learnt from."""


@dataclass(frozen=True)
class Bnneck(Supervised):
    """The baseline with a neck of batch normalisation, for any backbone."""

    epochs: int = 120
    batch: IntOrAuto = 64
    feature: Literal["before", "after"] = "before"
    """Which side of the neck one searches with."""
    optimization: BnneckOptimization = BnneckOptimization()


@dataclass(frozen=True)
class Mgn(Supervised):
    """Three branches with heads for parts of the body, for ResNets."""

    epochs: int = 60
    batch: IntOrAuto = 64
    instances: int = 16
    image_size: tuple[int, int] = (384, 128)
    precision: Precision = "tensorfloat32"
    augmentation: Augmentation = MGN_AUGMENTATION
    optimization: MgnOptimization = MgnOptimization()


@dataclass(frozen=True)
class Clustering:
    """Who counts as the same person, where nobody says: clusters of the network's own features."""

    by: Literal["dbscan", "denoise"] = "dbscan"
    """DBSCAN on Jaccard distances, as published; or the denoising of tracklets, where the data have them."""
    eps: float = 0.6
    """dbscan: the largest distance of neighbours. Published: 0.6 for Market-1501, 0.7 for MSMT17."""
    min_samples: int = 4
    """dbscan: the fewest neighbours, itself included, of an image that makes a cluster grow."""
    k1: int = 30
    """dbscan: how many images are near to an image, itself included."""
    k2: int = 6
    """dbscan: over how many of them what an image is near to is averaged."""


@dataclass(frozen=True)
class ClusterContrast(Finetuning):
    """Without labels: clusters anew in each epoch, and a memory of them to compare features with. For ResNets."""

    epochs: int = 50
    epoch_steps: int = 200
    batch: IntOrAuto = 256
    instances: int = 8
    precision: Precision = "tensorfloat32"
    augmentation: Augmentation = CLUSTER_CONTRAST_AUGMENTATION
    pixel_scale: Literal["weights", "augmentation"] = "weights"  # the first clusters are those of the weights
    clustering: Clustering = Clustering()
    denoising: Denoising = Denoising()
    temperature: float = 0.05
    """Divides the similarities of features and clusters."""
    exponent: float = 3.0
    """Of the pooling over the last map, at the start; it is learnt. Published is 3; 1 is the mean, with which backbones
    are pre-trained."""
    memory_momentum: float = 0.2
    """The share of a cluster's old row that stays when it follows a feature."""
    memory_update: Literal["hard", "plain"] = "hard"
    """What a row follows: the least similar of its images in a batch, or each of them in turn."""
    optimization: ClusterContrastOptimization = ClusterContrastOptimization()
