"""How well denoising finds people, on drawn worlds of features, beside other ways to do it. Takes some minutes.

    pip install -e '.[test]' && python -m experiments.denoising

Scored are pairs of images: of those that get one label, how many are one person (precision), and the other way round
(recall); an image without a label is alone. Means of five seeds, none of which was looked at while sigma and tau were
chosen, and the deviation of F1. Garbage are images that show nobody; kept are images that get a label.

`fixed` are sigma and tau that were set once for each world, from what its vectors are made of. DBSCAN and first
neighbours are helped: of eight eps, or of all partitions, the one with the best F1 is taken, world by world and seed by
seed. On centroids they get those of level 1, which has cleaned the tracklets with the fixed sigma.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN

from cion_jax.config import Denoising
from cion_jax.denoise.labelling import denoise
from cion_jax.denoise.notion import identities
from cion_jax.evaluate.agreement import agreement
from experiments.command import command
from experiments.feature_world import FeatureWorld, Sample, draw
from experiments.timing import environment

#: A world, and sigma and tau for it.
WORLDS: dict[str, tuple[FeatureWorld, float, float]] = {
    "easy": (FeatureWorld(noise=0.3, bias=0.2, drift=0.25, look_alikes=0.05, switches=0.02, garbage=0.02), 0.2, 0.2),
    "usual": (FeatureWorld(), 0.25, 0.2),
    "hard": (
        FeatureWorld(noise=0.8, bias=0.5, drift=0.5, look_alikes=0.2, switches=0.1, garbage=0.1, fragments=0.5),
        0.45,
        0.4,
    ),
    "strong bias of videos": (FeatureWorld(bias=0.9), 0.45, 0.4),
}
#: The first of the seeds.
FIRST_SEED = 100
#: Neighbours of a point that DBSCAN calls dense: of images, and of tracklets.
DENSE_IMAGES, DENSE_TRACKLETS = 4, 2
EPS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def main(seeds: int = 5, identities: int = 400, within: int = 100) -> None:
    """Print a table for each world.

    Args:
        seeds: Worlds of each kind.
        identities: People in each; videos are in proportion.
        within: The finite range.
    """
    print(environment("jax", "numpy", "scikit-learn"))
    for name, (world, sigma, tau) in WORLDS.items():
        rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            size = {"identities": identities, "videos": identities * 60 // 400}
            sample = draw(replace(world, seed=seed, **size))
            for row, labels in found(sample, Denoising(sigma=sigma, tau=tau), within):
                rows[row].append(scored(labels, sample.identity))
        print(f"\n{name}: {identities} people, about {len(sample.video):,} images, fixed sigma {sigma}, tau {tau}\n")
        print("| | precision | recall | F1 | kept | garbage kept | identities |\n|---|---|---|---|---|---|---|")
        for row, values in rows.items():
            print(f"| {row} | {cells(values)} |", flush=True)


def found(sample: Sample, fixed: Denoising, within: int) -> Iterator[tuple[str, np.ndarray]]:
    """Labels by each way of finding them."""
    features, video, tracklet, frame, truth = sample

    def ours(settings: Denoising, frames: bool = True) -> np.ndarray:
        return denoise(features, video, tracklet, frame if frames else None, settings).labels

    def spread(groups: np.ndarray) -> np.ndarray:
        return np.where(cleaned >= 0, groups[cleaned], -1)

    yield "raw tracklets", tracklet
    for name, chosen in (("fixed", fixed), ("auto", replace(fixed, sigma="auto", tau="auto"))):
        yield f"level 1, {name}", ours(replace(chosen, levels=1))
        yield f"levels 1 + 2, {name}", ours(replace(chosen, levels=2))
        yield f"levels 1 + 2 + 3, {name}", ours(chosen)
        yield f"{name}, without frames", ours(chosen, frames=False)
        yield f"{name}, range {within}", ours(replace(chosen, range=within))
    cleaned = ours(replace(fixed, levels=1))
    centers = identities(features, cleaned).centers
    yield "DBSCAN of centroids", best((spread(dbscan(centers, eps, DENSE_TRACKLETS)) for eps in EPS), truth)
    yield "first neighbours of centroids", best(map(spread, first_neighbours(centers)), truth)
    yield "DBSCAN of images", best((dbscan(features, eps, DENSE_IMAGES) for eps in EPS), truth)


def dbscan(vectors: np.ndarray, eps: float, dense: int) -> np.ndarray:
    """Clusters of unit vectors; eps is 1 - cosine, and a point near no cluster stays alone."""
    labels = DBSCAN(eps=np.sqrt(2 * eps), min_samples=dense).fit(vectors).labels_
    alone = labels < 0
    return np.where(alone, labels.max() + np.cumsum(alone), labels)


def first_neighbours(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Partitions in which each vector is with its nearest, then each cluster's mean with its nearest, and so on, after
    FINCH (Sarfraz, Sharma and Stiefelhagen, CVPR 2019)."""
    labels = np.arange(len(vectors))
    while labels.max() > 0:
        centers = identities(vectors, labels).centers
        similar = centers @ centers.T
        np.fill_diagonal(similar, -np.inf)
        nearest = similar.argmax(axis=1)
        edges = coo_array((np.ones(len(nearest)), (np.arange(len(nearest)), nearest)), shape=similar.shape)
        labels = connected_components(edges, directed=False)[1][labels]
        yield labels


def best(labellings: Iterator[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """The labelling that agrees best with the truth."""
    return max(labellings, key=lambda labels: agreement(labels, truth).f1)


def scored(labels: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """Precision, recall, F1, share of images kept, share of garbage kept, identities."""
    kept = labels >= 0
    return *agreement(labels, truth)[:3], kept.mean(), kept[truth < 0].mean(), len(np.unique(labels[kept]))


def cells(values: list[tuple[float, ...]]) -> str:
    """A row of the table."""
    precision, recall, f1, kept, garbage, count = map(mean, zip(*values, strict=True))
    spread = f" ± {stdev(value[2] for value in values):.3f}" if len(values) > 1 else ""
    shares = f"{kept:.1%} | {garbage:.1%}"
    return f"{precision:.3f} | {recall:.3f} | {f1:.3f}{spread} | {shares} | {count:,.0f}"


if __name__ == "__main__":
    command(main)
