"""Every setting, as frozen dataclasses: the comment under a field is its help text on the command line."""

from dataclasses import dataclass


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
    """How a training batch is drawn and decoded on the host."""

    height: int = 256
    """Rows of every decoded image; other sizes are resized on the host."""
    width: int = 128
    """Columns of every decoded image."""
    identities: int = 16
    """P: different identities in one batch, over all hosts together."""
    instances: int = 4
    """K: images of each identity, in consecutive rows of the batch."""
    seed: int = 0
    """Seed of the order; epoch and labels are the only other things it depends on."""
    threads: int = 0
    """Threads that decode, each a batch of its own; 0 means one per core."""
    skip_damaged: bool = False
    """Replace a damaged record by another image of its identity group and count it, instead of stopping."""


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
