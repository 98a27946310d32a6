"""The drawn world."""

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """A drawn world: people, cameras and a tracker's mistakes.

    Switches, fragments and background are what `experiments.benchmarks.video` counts in a real film.
    """

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
    switches: float = 0.13
    """Share of tracklets in which the tracker jumps to another person of the same video."""
    fragments: float = 0.28
    """Share of walks that the tracker breaks into two tracklets."""
    bad_boxes: float = 0.1
    """Share of images whose box drifts, cuts the person or is partly hidden by something."""
    background: float = 0.08
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
