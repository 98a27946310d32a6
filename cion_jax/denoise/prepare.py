"""Features made comparable before anything is linked: without the mean of their video, and with an even spectrum.

Raw pooled features carry the light and the background of their video, and few of their directions hold most of their
variance: distances in them say little about who is who. Each part is unsupervised, and stays out where the data do not
carry it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.denoise.inputs import Tracklets
from cion_jax.denoise.noise import Members
from cion_jax.denoise.vectors import TOGETHER, in_parts, sums, unit

#: Directions with less than this share of the mean variance are rounding.
FLAT = 1e-12
#: What is left of a unit vector in float32 when it has been taken off itself.
ROUNDED = 1e-5


def without_video_means(tracklets: Tracklets) -> np.ndarray:
    """Unit vectors (N, D) with the mean of their video taken off, as far as it is known.

    With c_t the mean of tracklet t, m_v that of the c_t of video v, which has k_v tracklets, and g that of all c_t:

        w = sum_t |c_t - m_v|^2 / (T - V)                      how far tracklets of a video are from its mean
        b = max(0, mean_v |m_v - g|^2 - mean_v (w / k_v))      how far videos truly differ
        x = unit(f - g - b / (b + w / k_v) (m_v - g))

    So the mean of a video with few tracklets has little weight, and a single video is only centred (James and Stein).
    Vectors of which nothing would be left stay as they are.
    """
    bounds = tracklets.bounds
    videos = tracklets.videos
    c_TxD = _means(tracklets.features, bounds)
    k_V = np.bincount(videos)
    g_D = c_TxD.mean(axis=0)
    m_VxD = _means(c_TxD, np.append(0, np.cumsum(k_V)))
    w = np.square(c_TxD - m_VxD[videos]).sum() / max(len(videos) - len(k_V), 1)
    b = max(0.0, float(np.square(m_VxD - g_D).sum(axis=1).mean() - (w / k_V).mean()))
    weight_V = b / (b + w / k_V) if b > 0 else np.zeros(len(k_V))
    # What is taken off the images of each video.
    off_VxD = g_D + weight_V[:, None] * (m_VxD - g_D)
    return _moved(tracklets.features, off_VxD, tracklets.video)


def _means(rows_NxD: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The mean of each run of rows, float64."""
    totals = np.empty((len(bounds) - 1, rows_NxD.shape[1]))

    def add(some: slice) -> None:
        part = rows_NxD[bounds[some.start] : bounds[some.stop]].astype(np.float64)
        totals[some] = sums(part, bounds[some.start : some.stop + 1] - bounds[some.start])

    in_parts(add, bounds, rows_NxD.shape[1])
    return totals / np.diff(bounds)[:, None]


def _moved(features_NxD: np.ndarray, off_VxD: np.ndarray, video_N: np.ndarray) -> np.ndarray:
    """unit(feature - what is taken off in its video)."""
    moved = np.empty_like(features_NxD)

    def move(rows: slice) -> None:
        part = features_NxD[rows] - off_VxD[video_N[rows]]
        lengths = np.linalg.norm(part, axis=1, keepdims=True)
        moved[rows] = np.where(lengths > ROUNDED, part / np.maximum(lengths, ROUNDED), features_NxD[rows])

    in_parts(move, np.arange(len(features_NxD) + 1), features_NxD.shape[1])
    return moved


class Space(NamedTuple):
    """A linear map of vectors, in which the distances of tracklets are compared."""

    name: str
    """One of "total", "within" and "none"."""
    mean: np.ndarray
    """(D,) what is taken off before."""
    map: np.ndarray
    """(D, D)."""

    def __call__(self, vectors_NxD: np.ndarray) -> np.ndarray:
        """The vectors in this space, of any length."""
        return (vectors_NxD - self.mean) @ self.map


def spaces(features_NxD: np.ndarray, members: Members, names: tuple[str, ...]) -> Iterator[Space]:
    """The spaces of these names, learned from the images that tracklets have kept.

    With S a covariance, e and U its eigenvalues and eigenvectors after shrinkage, a vector becomes (x - mean) U e^-1/2.

        total    S is that of all images: every direction counts alike
        within   S is that of images around their tracklet's mean: directions in which one person varies count less
        none     vectors stay as they are
    """
    width = features_NxD.shape[1]
    count = len(members.images)
    tracklets = len(members.names)
    zero = np.zeros(width)
    if "total" in names or "within" in names:
        mean, second = _moments(features_NxD, members.images)
    for name in names:
        if name == "total":
            yield Space(name, mean, _whitening(second - np.outer(mean, mean), count))
        elif name == "within":
            # The sum of x x' less that of the tracklets' means, for as many degrees of freedom.
            sizes = np.diff(members.bounds)[:, None]
            between = (members.sums / sizes).T @ members.sums
            degrees = max(count - tracklets, 1)
            yield Space(name, zero, _whitening((count * second - between) / degrees, degrees))
        else:
            yield Space(name, zero, np.eye(width))


def _moments(features_NxD: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and the mean of x x' (D, D) of some rows."""
    width = features_NxD.shape[1]
    total = np.zeros(width)
    second = np.zeros((width, width))
    rows = TOGETHER // width + 1
    for some in np.split(images, range(rows, len(images), rows)):
        part = features_NxD[some]
        total += part.sum(axis=0, dtype=np.float64)
        second += part.T @ part
    return total / len(images), second / len(images)


def _whitening(covariance_DxD: np.ndarray, samples: int) -> np.ndarray:
    """U e^-1/2 of a covariance that is shrunk towards a round one, the more the fewer samples there are for it.

    The weight of the round one is the oracle-approximating one of Chen, Wiesel, Eldar and Hero (2010), for p dimensions
    and n samples: ((1 - 2/p) tr S^2 + tr^2 S) / ((n + 1 - 2/p) (tr S^2 - tr^2 S / p)).
    """
    p = len(covariance_DxD)
    n = samples
    trace = np.trace(covariance_DxD)
    square = np.sum(covariance_DxD * covariance_DxD)
    spread = (n + 1 - 2 / p) * (square - trace**2 / p)
    weight = min(1.0, ((1 - 2 / p) * square + trace**2) / spread) if spread > 0 else 1.0
    shrunk = (1 - weight) * covariance_DxD + weight * trace / p * np.eye(p)
    values, directions = np.linalg.eigh(shrunk)
    return directions / np.sqrt(np.maximum(values, FLAT + FLAT * trace / p))


def in_space(space: Space, members: Members) -> np.ndarray:
    """Each tracklet as a unit vector of a space (T, D), float64.

    A tracklet of which the space leaves nothing, since all are alike, stays as it is.
    """
    means_TxD = members.sums / np.diff(members.bounds)[:, None]
    vectors_TxD = space(means_TxD)
    lengths = np.linalg.norm(vectors_TxD, axis=1, keepdims=True)
    return unit(np.where(lengths > ROUNDED * np.linalg.norm(space.map), vectors_TxD, means_TxD))
