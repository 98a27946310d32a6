"""How identities are sought among tracklets."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Denoising:
    """How identities are sought among tracklets; distances are 1 - cosine of the features as prepared."""

    sigma: float | Literal["auto"] = "auto"
    """Largest distance of an image from the centroid of its tracklet; auto estimates it from the features."""
    tau: float | Literal["auto"] = "auto"
    """Clusters of tracklets less than this apart, on average, become one; 0 links nobody. auto finds it by a false
    discovery rate, and links nobody where the features do not carry it."""
    trust_tau: bool = False
    """Take tau as it is given. Otherwise it is cut to the distance beyond which links are more likely wrong than right,
    where the features tell."""
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
