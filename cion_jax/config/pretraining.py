"""What every training has, and what pre-training adds to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etils import epath

from cion_jax.config.augmentation import Crops
from cion_jax.config.denoising import Denoising
from cion_jax.config.numbers import IntOrAuto
from cion_jax.config.precision import Precision
from cion_jax.config.records import Kernel


@dataclass(frozen=True)
class Head:
    """The projection head and the loss behind it."""

    prototypes: int = 65536
    """Rows of the last layer; ReIDZoo checkpoints have 65336."""
    hidden: int = 2048
    """Width of the two hidden layers."""
    bottleneck: int = 256
    """Width of the unit vectors that meet the prototypes."""
    block: int = 8192
    """Prototypes that the loss looks at together; smaller blocks need less memory."""
    student_temperature: float = 0.1
    """Divides the student's logits."""
    teacher_temperature: float = 0.04
    """Divides the teacher's centered logits."""
    center_momentum: float = 0.9
    """How much of the center stays at each step; the rest is the mean of the teacher's logits."""


@dataclass(frozen=True)
class Optimization:
    """Optimizer and schedules."""

    optimizer: Literal["adamw", "lars", "sgd"] = "adamw"
    """AdamW, LARS with momentum 0.9, or SGD with momentum 0.9."""
    learning_rate: float = 5e-4
    """Peak for 256 images in a batch; it grows in proportion with the batch."""
    learning_rate_end: float = 1e-6
    """Where the learning rate ends, not scaled."""
    warmup: float = 10
    """Epochs in which the learning rate rises from 0."""
    weight_decay: float = 0.04
    """At the start; biases, norms and other vectors are never decayed."""
    weight_decay_end: float = 0.4
    """At the end."""
    clip: float = 3.0
    """Largest norm of each parameter's gradient, one by one; 0 leaves gradients as they are."""
    frozen: int = 1
    """Epochs at the start in which the prototypes stand still."""
    momentum: float = 0.996
    """Share of the teacher that stays at the first step; it rises to 1."""


@dataclass(frozen=True)
class Training:
    """What every training has, whatever its method."""

    backbone: str = "resnet50_ibn"
    """What to train; `cion zoo` lists the names."""
    epochs: int = 100
    """How long to train; all schedules count in epochs."""
    epoch_steps: int = 0
    """Steps in an epoch; 0 takes as many as it needs to meet each image at least once. With a number, two trainings of
    equal epochs have equal steps, whoever counts as the same person."""
    batch: IntOrAuto = 960
    """Images in a step, over all devices; a multiple of every number of instances. auto: as many as the devices hold,
    found from the compiled program when the run begins."""
    image_size: tuple[int, int] = (256, 128)
    """Height and width to which images are decoded, before crops are taken."""
    resize: Kernel = "bilinear"
    """How images of another size are brought to it in training. Networks of mgn and of adaptation see them in the same
    way when they are tested; those of bnneck and of pre-training see bilinear ones, as in the published code."""
    precision: Precision = "bfloat16"
    """What networks compute in; parameters, norms, softmax and loss are float32 in any case. tensorfloat32 is float32
    but for what is multiplied, which GPUs and TPUs round to be faster; on CPUs the two are the same."""
    accumulate: IntOrAuto = 1
    """Parts of the batch that go through the networks one after the other; batch statistics are those of a part. auto:
    as few as make the batch fit."""
    remat: bool = False
    """Compute activations again in the backward pass, to save memory."""
    model_axis: int = 1
    """Devices that share the prototypes among them; images are shared by all devices in any case."""
    seed: int = 0
    """Weights, order and augmentation follow from it."""
    keep: int = 3
    """Newest checkpoints to keep."""
    keep_every: int = 20
    """Also keep, for good, the checkpoint at every so many epochs; 0 keeps none."""
    evaluate: epath.Path | None = None
    """A dataset folder with query and gallery, in which what is trained (in pre-training the teacher) is scored after
    epochs; mAP and rank 1 go into the journal. No step depends on it."""
    evaluate_every: int = 5
    """Epochs from one evaluation to the next; the last epoch has one in any case."""
    checkpoint_steps: int = 1000
    """A checkpoint is written at the end of each epoch, and every so many steps within one."""
    threads: int = 0
    """Threads that decode images; 0 means one per core."""
    shuffle_window: int = 0
    """Read the shards in long chunks, for object stores, and mix this many batches with one another (64, say; three
    times as many wait in memory). Identities must stand together, as `cion data repack --order grouped` puts them. 0
    reads each image by itself and mixes the whole epoch."""
    skip_damaged: bool = False
    """Replace a damaged record by another image of its identity and count it, instead of stopping."""


@dataclass(frozen=True)
class Pretraining(Training):
    """One pre-training, from labelled or unlabelled records to a backbone."""

    level: Literal["instance", "tracklet", "identity"] = "identity"
    """Who counts as the same person: only the image itself, its raw tracklet, or its identity (see labels, relabel)."""
    weights: Path | None = None
    """A run, or weights of this backbone, to begin with; without it they are fresh. The head is fresh in any case."""
    labels: Path | None = None
    """A labelling of the data for the identity level; without it the identities in the records are used."""
    relabel: tuple[int, ...] | Literal["auto"] = "auto"
    """Epochs at which the teacher embeds the data and denoising makes new labels. Before the first, identities are
    those of labels, or without labels the raw tracklets. auto: at the identity level, where there are no labels and the
    records have no identities, at about 30, 48 and 65 % of the epochs; else never."""
    instances: tuple[int, ...] = (2, 4, 6, 8)
    """K, images of an identity in a batch, stage by stage; the instance level has only 1."""
    stages: tuple[int, ...] = (0, 40, 60, 80)
    """The epoch at which each stage begins."""
    crops: Crops = Crops()
    head: Head = Head()
    optimization: Optimization = Optimization()
    denoising: Denoising = Denoising()
