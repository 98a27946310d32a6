"""What denoising starts from: a feature for each image, and where a tracker saw it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.denoise.vectors import in_parts, starts, unit
from cion_jax.errors import UserError
from cion_jax.npz import read_npz

#: The moment of an image whose frame is not known: it keeps nobody apart.
UNKNOWN = -1
#: Fewer tracklets that all share frames may simply be people who stand together.
MANY = 5


class TrackedFeatures(NamedTuple):
    """One row per image."""

    features: np.ndarray
    """(N, D) floats of any length but 0."""
    video: np.ndarray
    """(N,) whole numbers."""
    tracklet: np.ndarray
    """(N,) whole numbers, none in two videos; -1 for images without a tracklet."""
    frame: np.ndarray | None = None
    """(N,) whole numbers, counted in each video; -1 where not known."""


class Tracklets(NamedTuple):
    """Images in an order of their own, by video, tracklet, frame and content: that of the input makes no difference."""

    features: np.ndarray
    """(N, D) float32 unit vectors."""
    video: np.ndarray
    """(N,) from 0, without gaps."""
    tracklet: np.ndarray
    """(N,) from 0, without gaps; those of a video stand together."""
    moment: np.ndarray
    """(N,) a number for each frame of each video, or UNKNOWN."""
    place: np.ndarray
    """(N,) where the image stood in the input."""
    given: int
    """Images in the input; those without a tracklet are not among the N."""

    @property
    def bounds(self) -> np.ndarray:
        """(T + 1,) the first row of each tracklet, and behind them N."""
        return np.searchsorted(self.tracklet, np.arange(self.tracklet[-1] + 2))

    @property
    def videos(self) -> np.ndarray:
        """(T,) the video of each tracklet."""
        return self.video[self.bounds[:-1]]


def read_tracked(path: Path, mirror: bool = True) -> TrackedFeatures:
    """Features and tracklets in one .npz, however they were made; nothing that is pickled is run.

    The arrays are features, tracklet and, if they are there, video (else all tracklets are of one), frame, and
    mirrored: the features of the mirrored images, which are added unless `mirror` is off.
    """
    found = read_npz(path, ["features", "tracklet"], ["video", "frame", "mirrored"])
    rows = mirrored_added(path, found) if mirror else found["features"]
    video = found.get("video", np.zeros(found["tracklet"].shape, np.int64))
    return TrackedFeatures(rows, video, found["tracklet"], found.get("frame"))


def mirrored_added(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The array features, with the array mirrored added where it is there, each row of both at length 1."""
    features, mirrored = arrays["features"], arrays.get("mirrored")
    if mirrored is None:
        return features
    if mirrored.shape != features.shape or not np.issubdtype(mirrored.dtype, np.floating):
        raise UserError(f"{path}: mirrored is {mirrored.dtype} of shape {mirrored.shape}; make it as features is")
    return unit(features.astype(np.float32)) + unit(mirrored.astype(np.float32))


def arrange(tracked: TrackedFeatures, frames: bool = True) -> Tracklets:
    """Check arrays of one row per image and put them in order; images of tracklet -1 are left out.

    Args:
        tracked: What there is.
        frames: Whether frames keep tracklets apart.
    """
    features, video, tracklet, frame = tracked
    _check(*tracked)
    lengths, contents = _measured(features)
    frame = np.full(len(video), UNKNOWN) if frame is None or not frames else frame
    video, tracklet, frame = (values.astype(np.int64) for values in (video, tracklet, frame))
    order = np.lexsort((contents, frame, tracklet, video))
    order = order[tracklet[order] >= 0]
    if not len(order):
        raise UserError("no image has a tracklet, and denoising starts from tracklets")
    video, tracklet, frame = video[order], tracklet[order], frame[order]
    first = starts(np.stack([video, tracklet], axis=1))
    numbers, videos = np.unique(tracklet[first], return_counts=True)
    if videos.max() > 1:
        raise UserError(
            f"tracklet {numbers[videos.argmax()]} is in {videos.max()} videos; number tracklets so that none is in two"
        )
    by_time = np.lexsort((frame, video))
    moments = np.empty(len(order), np.int64)
    moments[by_time] = np.cumsum(starts(np.stack([video, frame], axis=1)[by_time]))
    vectors = np.empty((len(order), features.shape[1]), np.float32)

    def bring(rows: slice) -> None:
        vectors[rows] = features[order[rows]] / lengths[order[rows], None]

    in_parts(bring, np.arange(len(order) + 1), features.shape[1])
    moment = np.where(frame >= 0, moments, UNKNOWN)
    return Tracklets(vectors, np.cumsum(starts(video)) - 1, np.cumsum(first) - 1, moment, order, len(features))


def frame_warnings(tracked: TrackedFeatures) -> tuple[str, ...]:
    """Videos whose frame numbers seem to begin anew in each tracklet, which would forbid every link, in words.

    That is so where many tracklets are there and all begin in the same frame.
    """
    if tracked.frame is None:
        return ()
    known = (tracked.tracklet >= 0) & (tracked.frame >= 0)
    if not known.any():
        return ()
    arrays = tracked.video, tracked.tracklet, tracked.frame
    video, tracklet, frame = (values[known].astype(np.int64) for values in arrays)
    order = np.lexsort((frame, tracklet, video))
    first = order[starts(np.stack([video[order], tracklet[order]], axis=1))]
    videos, where, count = np.unique(video[first], return_inverse=True, return_counts=True)
    earliest = np.full(len(videos), np.iinfo(np.int64).max)
    np.minimum.at(earliest, where, frame[first])
    together = np.bincount(where, frame[first] == earliest[where])
    anew = videos[(together == count) & (count >= MANY)]
    if not len(anew):
        return ()
    names = ", ".join(map(str, anew[:5].tolist())) + (", ..." if len(anew) > 5 else "")
    return (
        f"in {len(anew):,} of {len(videos):,} videos ({names}) all tracklets begin in the same frame, so that each "
        "shares frames with each other and none may be linked; if frames are numbered anew in each tracklet, "
        "use --no-frames",
    )


def _measured(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's length, and a number made of its bits: rows that agree in all else keep no order from the input."""
    lengths, contents = np.empty(len(features)), np.empty(len(features), np.uint64)
    random = np.random.default_rng(0)
    odd = random.integers(1 << 63, size=features.shape[1], dtype=np.uint64) | np.uint64(1)

    def measure(rows: slice) -> None:
        with np.errstate(over="ignore"):  # infinite numbers are told of below
            lengths[rows] = np.linalg.norm(features[rows].astype(np.float64), axis=1)
            bits = np.ascontiguousarray(features[rows], np.float32).view(np.uint32)
        contents[rows] = bits.astype(np.uint64) @ odd

    in_parts(measure, np.arange(len(features) + 1), max(features.shape[1], 1))
    wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(wrong):
        raise UserError(
            f"the feature of image {wrong[0]:,} is zero or no number, and {len(wrong) - 1:,} others are; leave them out"
        )
    return lengths, contents


def _check(features: np.ndarray, video: np.ndarray, tracklet: np.ndarray, frame: np.ndarray | None) -> None:
    """Refuse arrays that do not fit together."""
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise UserError(f"features are {features.dtype} of shape {features.shape}; make them floats, (images, width)")
    for name, values in {"video": video, "tracklet": tracklet, "frame": frame}.items():
        if values is not None and (values.shape != features.shape[:1] or not np.issubdtype(values.dtype, np.integer)):
            raise UserError(
                f"{name} is {values.dtype} of shape {values.shape}; there are {len(features):,} features, and each "
                "needs a whole number"
            )
