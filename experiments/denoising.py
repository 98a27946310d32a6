"""How well denoising finds people, beside other ways to do it: in drawn worlds of features, or on features of your own.

    pip install -e '.[test]' && python -m experiments.denoising                # takes some minutes
    python -m experiments.denoising --features FEATURES.npz ...

Scored are pairs of images: of those that get one label, how many are one person (precision), and the other way round
(recall); an image without a label is alone. In drawn worlds the figures are means of five seeds, none of which was
looked at while anything was chosen, and the standard deviation of F1. Garbage are images that show nobody; kept are
images that get a label. `/ 2` and `x 1.5` are all levels with half and one and a half times the tau that auto chose:
given by hand, it is cut where links are more likely wrong than right, unless it is trusted.

Contestants are helped: each gets the tracklets that level 1 has cleaned, as plain centroids and as the vectors in which
ours are compared, and of all its settings on both the labelling with the best F1 by the truth is taken, seed by seed.
DBSCAN also gets all images, with their video's mean off.

An .npz has the arrays features, tracklet and identity (-1: nobody), and if known video, frame and mirrored. Without
video it is taken as one video. Where it has clip and tracklet_of_clip, these are taken as video and tracklet in a
further table.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN, HDBSCAN, AgglomerativeClustering

from cion_jax.config import Denoising
from cion_jax.denoise.denoise import denoise
from cion_jax.denoise.inputs import TrackedFeatures, mirrored_added
from cion_jax.denoise.vectors import unit
from cion_jax.evaluate.clustering_metrics import agreement
from cion_jax.npz import read_npz
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment
from experiments.feature_world import FeatureWorld, draw

#: A world, and sigma and tau that suit what its vectors are made of.
WORLDS: dict[str, tuple[FeatureWorld, float, float]] = {
    "easy": (FeatureWorld(noise=0.3, bias=0.2, drift=0.25, look_alikes=0.05, switches=0.02, garbage=0.02), 0.1, 0.2),
    "usual": (FeatureWorld(), 0.2, 0.3),
    "hard": (
        FeatureWorld(noise=0.8, bias=0.5, drift=0.5, look_alikes=0.2, switches=0.1, garbage=0.1, fragments=0.5),
        0.45,
        0.45,
    ),
    "strong bias of videos": (FeatureWorld(bias=0.9), 0.2, 0.3),
}
#: The first of the seeds.
FIRST_SEED = 300
#: Thresholds that contestants may choose from, as distances 1 - cosine, and smallest clusters of HDBSCAN.
EPS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST = (2, 3, 4, 6)
#: The same for images, of which a dense place has more.
EPS_IMAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
DENSE_IMAGES = 4

#: Rows of a table: a name, and a label for each image.
Labellings = Iterator[tuple[str, np.ndarray]]


def main(
    seeds: int = 5,
    identities: int = 400,
    within: int = 100,
    features: tuple[Path, ...] = (),
    alone: bool = False,
) -> None:
    """Print a table for each world, or for each file.

    Args:
        seeds: Worlds of each kind.
        identities: People in each; videos are in proportion.
        within: The finite range of the third level.
        features: Files to take instead of drawn worlds.
        alone: Leave out the contestants, which take most of the time.
    """
    print(environment("jax", "numpy", "scikit-learn"))
    for path in features:
        for name, tracked, truth in read(path):
            labellings = all_labellings(tracked, truth, None, within, alone)
            rows = {row: [scored(labels, truth)] for row, labels in labellings}
            print_table(f"{name}: {len(truth):,} images", rows)
    for name, (world, sigma, tau) in WORLDS.items() if not features else ():
        scores: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            size = {"identities": identities, "videos": identities * 60 // 400}
            sample = draw(replace(world, seed=seed, **size))
            fixed = Denoising(sigma=sigma, tau=tau, whiten="total")
            tracked = TrackedFeatures(*sample[:4])
            for row, labels in all_labellings(tracked, sample.identity, fixed, within, alone):
                scores[row].append(scored(labels, sample.identity))
        size_of = f"{identities} people, about {len(sample.video):,} images"
        print_table(f"{name}: {size_of}, fixed sigma {sigma}, tau {tau}", scores)


def read(path: Path) -> Iterator[tuple[str, TrackedFeatures, np.ndarray]]:
    """What a file holds, by video and by clip, with the truth."""
    needed = ["features", "tracklet", "identity"]
    optional = ["video", "frame", "mirrored", "clip", "tracklet_of_clip"]
    arrays = read_npz(path, needed, optional)
    truth = arrays["identity"]
    frame = arrays.get("frame")
    features = mirrored_added(path, arrays)
    video = arrays.get("video", np.zeros(len(truth), np.int64))
    yield path.name, TrackedFeatures(features, video, arrays["tracklet"], frame), truth
    if "clip" in arrays and "tracklet_of_clip" in arrays:
        by_clip = TrackedFeatures(features, arrays["clip"], arrays["tracklet_of_clip"], frame)
        yield f"{path.name}, by clips", by_clip, truth


def all_labellings(
    tracked: TrackedFeatures, truth: np.ndarray, fixed: Denoising | None, within: int, alone: bool
) -> Labellings:
    """Labels by denoising, and by the contestants unless it is alone."""
    yield from denoised(tracked, fixed, within)
    if not alone:
        yield from contestants(tracked, truth)


def denoised(tracked: TrackedFeatures, fixed: Denoising | None, within: int) -> Labellings:
    """Labels by denoising, with fixed thresholds, with those that `auto` finds, and with others near them."""
    auto = denoise(*tracked)
    for note in auto.warnings:
        print(f"\n({note})", flush=True)
    yield "raw tracklets", tracked.tracklet
    for name, chosen in {"fixed": fixed, "auto": Denoising()}.items():
        if chosen is not None:
            yield f"level 1, {name}", denoise(*tracked, replace(chosen, levels=1)).labels
            yield f"levels 1 + 2, {name}", denoise(*tracked, replace(chosen, levels=2)).labels
            yield f"levels 1 + 2 + 3, {name}", denoise(*tracked, chosen).labels
            if tracked.frame is not None:
                yield f"{name}, without frames", denoise(*tracked, replace(chosen, frames=False)).labels
            yield f"{name}, range {within}", denoise(*tracked, replace(chosen, range=within)).labels
    tau = float(auto.settings.tau)
    larger = replace(auto.settings, tau=min(1.5 * tau, 2.0))
    yield "auto, tau / 2", denoise(*tracked, replace(auto.settings, tau=tau / 2)).labels
    yield "auto, tau x 1.5", denoise(*tracked, larger).labels
    yield "auto, tau x 1.5, trusted", denoise(*tracked, replace(larger, trust_tau=True)).labels


def contestants(tracked: TrackedFeatures, truth: np.ndarray) -> Labellings:
    """The best labels by other methods, of cleaned tracklets."""
    cleaned = denoise(*tracked, Denoising(tau=0))
    clusters = cleaned.clusters
    tracklet = np.full(len(truth), -1)
    tracklet[clusters.tracklets.place] = clusters.home
    numbers = range(len(clusters.members.names))
    plain = unit(np.stack([tracked.features[tracklet == each].mean(axis=0) for each in numbers]))

    def best(labels_of: Iterator[np.ndarray]) -> np.ndarray:
        """Of the labels of all that `tracklet` numbers, those that agree best with the truth, image by image."""
        of_images = (np.where(tracklet >= 0, labels[tracklet], -1) for labels in labels_of)
        return max(of_images, key=lambda labels: agreement(labels, truth).f1)

    for name, method in {
        "DBSCAN": dbscan,
        "HDBSCAN": hdbscan,
        "average linkage": average_linkage,
        "first neighbours": first_neighbours,
    }.items():
        yield f"{name}, helped", best(labels for vectors in (plain, clusters.vectors) for labels in method(vectors))
    tracklet[clusters.tracklets.place] = np.arange(len(clusters.tracklets.place))
    yield "DBSCAN of images, helped", best(dbscan(clusters.tracklets.features, EPS_IMAGES, DENSE_IMAGES))


def dbscan(vectors: np.ndarray, choice: tuple[float, ...] = EPS, dense: int = 2) -> Iterator[np.ndarray]:
    """Labels at each radius; a point near no cluster stays alone."""
    for eps in choice:
        yield noise_alone(DBSCAN(eps=np.sqrt(2 * eps), min_samples=dense).fit(vectors).labels_)


def hdbscan(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """The same, with densities that may differ."""
    for smallest in SMALLEST:
        yield noise_alone(HDBSCAN(min_cluster_size=smallest, min_samples=1, copy=True).fit(vectors).labels_)


def average_linkage(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Agglomeration without cannot-links."""
    for eps in EPS:
        method = AgglomerativeClustering(n_clusters=None, distance_threshold=eps, metric="cosine", linkage="average")
        yield method.fit(vectors).labels_


def noise_alone(labels: np.ndarray) -> np.ndarray:
    """Labels in which each point of noise (-1) is a cluster of its own."""
    return np.where(labels < 0, labels.max() + np.cumsum(labels < 0), labels)


def first_neighbours(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Partitions in which each vector is with its nearest, then each cluster's mean with its nearest, and so on, after
    FINCH (Sarfraz, Sharma and Stiefelhagen, CVPR 2019)."""
    labels = np.arange(len(vectors))
    while labels.max() > 0:
        yield labels
        centers = unit(np.stack([vectors[labels == each].sum(axis=0) for each in range(labels.max() + 1)]))
        similar = centers @ centers.T
        np.fill_diagonal(similar, -np.inf)
        nearest = similar.argmax(axis=1)
        edges = coo_array((np.ones(len(nearest)), (np.arange(len(nearest)), nearest)), shape=similar.shape)
        labels = connected_components(edges, directed=False)[1][labels]


def scored(labels: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """Precision, recall, F1, share of images kept, share of garbage kept, identities."""
    kept = labels >= 0
    garbage = kept[truth < 0].mean() if (truth < 0).any() else 0.0
    return *agreement(labels, truth)[:3], kept.mean(), garbage, len(np.unique(labels[kept]))


def print_table(title: str, rows: dict[str, list[tuple[float, ...]]]) -> None:
    """A row for each way."""
    print(f"\n{title}\n")
    print("| | precision | recall | F1 | kept | garbage kept | identities |\n|---|---|---|---|---|---|---|")
    for row, values in rows.items():
        print(f"| {row} | {cells(values)} |", flush=True)


def cells(values: list[tuple[float, ...]]) -> str:
    """Means over seeds, with the spread of F1."""
    precision, recall, f1, kept, garbage, count = map(mean, zip(*values, strict=True))
    spread = f" ± {stdev(value[2] for value in values):.3f}" if len(values) > 1 else ""
    shares = f"{kept:.1%} | {garbage:.1%}"
    return f"{precision:.3f} | {recall:.3f} | {f1:.3f}{spread} | {shares} | {count:,.0f}"


if __name__ == "__main__":
    command(main)
