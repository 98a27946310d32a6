"""What denoising starts from: a feature for each image, and where a tracker saw it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.denoise.vectors import in_parts, starts, unit
from cion_jax.errors import UserError
from cion_jax.npz import read_npz

#: The key of an unknown frame: it forbids no link.
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
    """Images by video, tracklet, frame and content, so that the order of the input makes no difference."""

    features: np.ndarray
    """(N, D) float32 unit vectors."""
    video: np.ndarray
    """(N,) from 0, without gaps."""
    tracklet: np.ndarray
    """(N,) from 0, without gaps; those of a video stand together."""
    frame_key: np.ndarray
    """(N,) a number of its own for each frame of each video, or UNKNOWN."""
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
    arrays = read_npz(
        path,
        ["features", "tracklet"],
        ["video", "frame", "mirrored"],
        expected="an .npz or a folder that `cion embed` wrote",
    )
    features = mirrored_added(path, arrays) if mirror else arrays["features"]
    video = arrays.get("video", np.zeros(arrays["tracklet"].shape, np.int64))
    return TrackedFeatures(features, video, arrays["tracklet"], arrays.get("frame"))


def mirrored_added(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The array features, with the array mirrored added where it is there, each row of both at length 1."""
    features = arrays["features"]
    mirrored = arrays.get("mirrored")
    if mirrored is None:
        return features
    if mirrored.shape != features.shape or not np.issubdtype(mirrored.dtype, np.floating):
        raise UserError(f"{path}: mirrored is {mirrored.dtype} of shape {mirrored.shape}; make it as features is")
    return unit(features.astype(np.float32)) + unit(mirrored.astype(np.float32))


def arrange(tracked: TrackedFeatures, frames: bool = True) -> Tracklets:
    """Check arrays of one row per image and put them in order; images of tracklet -1 are left out.

    Args:
        tracked: A row for each image.
        frames: Whether two tracklets that share a frame are two people.
    """
    _check(*tracked)
    features, video, tracklet, frame = tracked
    lengths, contents = _measured(features)
    frame = np.full(len(video), UNKNOWN) if frame is None or not frames else frame
    video, tracklet, frame = (values.astype(np.int64) for values in (video, tracklet, frame))

    order = np.lexsort((contents, frame, tracklet, video))
    order = order[tracklet[order] >= 0]
    if not len(order):
        raise UserError("no image has a tracklet, and denoising starts from tracklets")
    video = video[order]
    tracklet = tracklet[order]
    frame = frame[order]

    first = starts(np.stack([video, tracklet], axis=1))
    numbers, videos = np.unique(tracklet[first], return_counts=True)
    if videos.max() > 1:
        raise UserError(
            f"tracklet {numbers[videos.argmax()]} is in {videos.max()} videos; number tracklets so that none is in two"
        )

    # Frames of all videos are numbered from 1 on, by video and time.
    by_time = np.lexsort((frame, video))
    frame_key = np.empty(len(order), np.int64)
    frame_key[by_time] = np.cumsum(starts(np.stack([video, frame], axis=1)[by_time]))
    frame_key[frame < 0] = UNKNOWN

    vectors = np.empty((len(order), features.shape[1]), np.float32)

    def normalise(rows: slice) -> None:
        vectors[rows] = features[order[rows]] / lengths[order[rows], None]

    in_parts(normalise, np.arange(len(order) + 1), features.shape[1])
    video_number = np.cumsum(starts(video)) - 1
    tracklet_number = np.cumsum(first) - 1
    return Tracklets(vectors, video_number, tracklet_number, frame_key, order, len(features))


def frame_warnings(tracked: TrackedFeatures) -> tuple[str, ...]:
    """A line if the frame numbers of a video seem to begin anew in each tracklet, which would forbid every link.

    That is so where a video has many tracklets and all begin in the same frame.
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
    """(N,) each row's length, and a hash of its bits by which rows are ordered that agree in all else."""
    lengths = np.empty(len(features))
    contents = np.empty(len(features), np.uint64)
    random = np.random.default_rng(0)
    odd = random.integers(1 << 63, size=features.shape[1], dtype=np.uint64) | np.uint64(1)

    def measure(rows: slice) -> None:
        with np.errstate(over="ignore"):  # infinite numbers are refused below
            lengths[rows] = np.linalg.norm(features[rows].astype(np.float64), axis=1)
            bits = np.ascontiguousarray(features[rows], np.float32).view(np.uint32)
        contents[rows] = bits.astype(np.uint64) @ odd

    in_parts(measure, np.arange(len(features) + 1), max(features.shape[1], 1))
    wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(wrong):
        raise UserError(
            f"features of {len(wrong):,} images are zero, infinite or NaN, first that of image {wrong[0]:,}; "
            "leave these images out"
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
