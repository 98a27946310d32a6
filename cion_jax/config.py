"""Every setting, as frozen dataclasses: the comment under a field is its help text on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etils import epath

#: Networks are fed values 0 to 1, less the mean of each channel, divided by its standard deviation: those of ImageNet.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Writing:
    """How a dataset is written."""

    images_per_shard: int = 8192
    """Images in one shard file; a pod wants at least one shard per reading host."""
    workers: int = 0
    """Processes that write shards at the same time; 0 means one per core."""
    skip_damaged: bool = False
    """Leave out (and count) images that do not decode, instead of stopping at the first."""


@dataclass(frozen=True)
class Reading:
    """How images are decoded on the host."""

    height: int = 256
    """Rows of every decoded image; other sizes are resized on the host."""
    width: int = 128
    """Columns of every decoded image."""
    threads: int = 0
    """Threads that decode, each a batch of its own; 0 means one per core."""
    skip_damaged: bool = False
    """Replace a damaged record by another image of its identity and count it, instead of stopping."""


@dataclass(frozen=True)
class World:
    """A drawn world: people, cameras and a tracker's mistakes."""

    identities: int = 96
    """People who can be met in the training videos."""
    videos: int = 24
    """Training videos; each is filmed by one camera."""
    cameras: int = 6
    """Cameras, each with its own place, viewpoint, exposure, colour cast, blur and resolution."""
    seed: int = 0
    """Everything drawn follows from this number and the other settings."""
    appearances: float = 4.0
    """Videos in which a person is seen, on average."""
    length: float = 12.0
    """Images in a tracklet, on average."""
    look_alikes: float = 0.2
    """Share of people who are dressed nearly like somebody else."""
    motion: float = 0.5
    """How far a training camera is carried on from image to image, in heights of a person; at 0 it hangs on a wall."""
    switches: float = 0.05
    """Share of tracklets in which the tracker jumps to another person of the same video."""
    fragments: float = 0.2
    """Share of walks that the tracker breaks into two tracklets."""
    bad_boxes: float = 0.1
    """Share of images whose box drifts, cuts the person or is partly hidden by something."""
    background: float = 0.03
    """Share of images that show no person at all."""
    test_identities: int = 48
    """Held-out people: never in training, drawn for the query and gallery splits."""
    distractors: int = 200
    """Gallery images of people whom no query asks for (identity 0)."""
    height: int = 128
    """Rows of every drawn image."""
    width: int = 64
    """Columns of every drawn image."""
    quality: int = 92
    """JPEG quality."""


@dataclass(frozen=True)
class Crops:
    """The views of an image that student and teacher see."""

    global_size: tuple[int, int] = (256, 128)
    """Height and width of the two global crops, which teacher and student see."""
    local_size: tuple[int, int] = (128, 64)
    """Height and width of the local crops, which the student alone sees."""
    local_crops: int = 8
    """Local crops of each image."""
    global_scale: tuple[float, float] = (0.8, 1.0)
    """Smallest and largest share of the image's area in a global crop."""
    local_scale: tuple[float, float] = (0.05, 0.8)
    """The same for a local crop."""
    aspect: tuple[float, float] = (0.4, 0.6)
    """Smallest and largest width / height of the cut-out, before it is resized."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: float = 0.8
    """Probability that colours are jittered, in an order of its own for each crop."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Largest change of brightness, contrast, saturation (as a factor 1 +- x) and hue (as a turn of the wheel)."""
    grey: float = 0.2
    """Probability that colours are dropped."""
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Probability of a Gaussian blur: first global crop, second global crop, local crops."""
    blur_radius: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest radius of the blur, in pixels of the crop."""
    solarize: float = 0.2
    """Probability that the second global crop is solarized (values of 128 and above inverted)."""


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
class Denoising:
    """How identities are sought among tracklets; distances are 1 - cosine of the features as prepared."""

    sigma: float | Literal["auto"] = "auto"
    """Largest distance of an image from the centroid of its tracklet; auto estimates it from the features."""
    tau: float | Literal["auto"] = "auto"
    """Clusters of tracklets less than this apart, on average, become one; 0 links nobody. auto finds it by a false
    discovery rate, and links nobody where the features do not carry it."""
    range: int | Literal["all"] = "all"
    """Identities in a row, by video, among which the third level seeks one another; a small range saves time."""
    levels: Literal[1, 2, 3] = 3
    """1: drop from each tracklet what does not fit; 2: and find who is who in each video; 3: and across videos."""
    min_images: int = 1
    """Identities with fewer images are dropped at the end."""
    frames: bool = True
    """Two tracklets that share a frame are two people; off where frames are numbered anew in each tracklet."""
    video_mean: bool = True
    """Take the mean of its video off each feature, as far as it is known."""
    whiten: Literal["auto", "total", "within", "none"] = "auto"
    """Compare tracklets where every direction varies alike: over all images (total), or over the images of a tracklet
    (within). auto takes the one that shows more links."""
    mirror: bool = True
    """While a training makes labels anew: add the features of each image's mirror image. Features from `cion embed`
    have it with --flip; an .npz with an array `mirrored` has it added."""
    match_colours: bool = True
    """While a training makes labels anew: match the colours of each video before embedding, as
    `cion embed --match-colours` does."""


@dataclass(frozen=True)
class Hosts:
    """How the processes of one job find each other; under Slurm, Open MPI and on GKE they do by themselves."""

    coordinator: str | None = None
    """HOST:PORT at which the first process can be reached by all; give it to all of them."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """Which of them this one is, from 0."""
    join: bool = False
    """Look for others though the environment tells of none, as on a slice of Cloud TPUs."""


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
    batch: int = 960
    """Images in a step, over all devices; a multiple of every number of instances."""
    image_size: tuple[int, int] = (256, 128)
    """Height and width to which images are decoded, before crops are taken."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """What networks compute in; parameters, norms, softmax and loss are float32 in any case."""
    accumulate: int = 1
    """Parts of the batch that go through the networks one after the other; batch statistics are those of a part."""
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
    """A dataset folder with query and gallery, in which the teacher is scored after epochs; mAP and rank 1 go into the
    journal. Nothing that is trained depends on it."""
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
