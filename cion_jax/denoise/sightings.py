"""What denoising starts from: a unit vector for each image, and where a tracker saw it."""

from typing import NamedTuple

import numpy as np

from cion_jax.denoise.notion import Identities, identities, in_parts
from cion_jax.errors import UserError

#: The moment of an image whose frame is not known: it keeps nobody apart.
UNKNOWN = -1


class Sightings(NamedTuple):
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
    raw: Identities
    """The tracklets as they are, each taken for a person."""

    @property
    def bounds(self) -> np.ndarray:
        """The first row of each tracklet, and behind them N."""
        return np.searchsorted(self.tracklet, np.arange(self.tracklet[-1] + 2))


def sightings(
    features: np.ndarray, video: np.ndarray, tracklet: np.ndarray, frame: np.ndarray | None = None
) -> Sightings:
    """Check arrays of one row per image and put them in order; images of tracklet -1 are left out.

    Frames are numbers within their video; -1, or none given, stands for not known.
    """
    _check(features, video, tracklet, frame)
    lengths, contents = _measured(features)
    frame = np.full(len(video), UNKNOWN) if frame is None else frame
    video, tracklet, frame = (values.astype(np.int64) for values in (video, tracklet, frame))
    order = np.lexsort((contents, frame, tracklet, video))
    order = order[tracklet[order] >= 0]
    if not len(order):
        raise UserError("no image has a tracklet, and denoising starts from tracklets")
    video, tracklet, frame = video[order], tracklet[order], frame[order]
    first = _starts(np.stack([video, tracklet], axis=1))
    numbers, videos = np.unique(tracklet[first], return_counts=True)
    if videos.max() > 1:
        raise UserError(
            f"tracklet {numbers[videos.argmax()]} is in {videos.max()} videos; number tracklets so that none is in two"
        )
    moment = np.cumsum(_starts(np.stack([video, frame], axis=1)[by_time := np.lexsort((frame, video))]))
    moments = np.empty(len(order), np.int64)
    moments[by_time] = moment
    vectors, tracklet = np.empty((len(order), features.shape[1]), np.float32), np.cumsum(first) - 1

    def bring(rows: slice) -> None:
        vectors[rows] = features[order[rows]] / lengths[order[rows], None]

    in_parts(bring, np.arange(len(order) + 1), features.shape[1])
    return Sightings(
        vectors,
        np.cumsum(_starts(video)) - 1,
        tracklet,
        np.where(frame >= 0, moments, UNKNOWN),
        order,
        len(features),
        identities(vectors, tracklet),
    )


def _starts(values: np.ndarray) -> np.ndarray:
    """Whether a row differs from the one before; the first does."""
    differs = values[1:] != values[:-1]
    return np.concatenate([[True], differs if differs.ndim == 1 else differs.any(axis=1)])


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
