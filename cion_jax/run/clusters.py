"""New clusters while training: the network embeds all images, and clusters of its features are the people.

RUN/labels/epoch-00007.npz    the clusters from that epoch on: a labelling like any other
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.atomic import write_atomically
from cion_jax.config import ClusterContrast
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.denoise.denoise import denoise
from cion_jax.errors import UserError
from cion_jax.evaluate.jaccard import cluster_centers, dbscan, jaccard_graph
from cion_jax.hosts import all_gather, is_main, on_main
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.run.damaged import embed_passing
from cion_jax.run.relabel import labels_path, tracked_features
from cion_jax.terminal import ProgressBar


def most_clusters(settings: ClusterContrast, records: Records) -> int:
    """Rows that the memory has, so that its size, and with it the program, is the same in every epoch."""
    if settings.clustering.by == "denoise":
        return max(1, len(np.unique(records.index["tracklet"])))
    return max(1, len(records) // settings.clustering.min_samples)


def cluster(
    settings: ClusterContrast,
    network: Network,
    variables: Variables,
    records: Records,
    out: Path,
    epoch: int,
    bar: ProgressBar,
) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each image, -1 for outliers, and the center of each cluster; the former is also written."""
    features, labels = _clusters(settings, network, variables, records, bar)
    made_by = "denoising" if settings.clustering.by == "denoise" else f"DBSCAN with eps {settings.clustering.eps:g}"
    _check(settings, labels, f"{out}: epoch {epoch}: {made_by}")
    note = {"made by": "cion adapt", "epoch": epoch, "clusters": made_by}
    on_main(lambda: _write(labels_path(out, epoch), labels, records.card.fingerprint, note))
    centers = cluster_centers(features, labels)
    return labels, all_gather(centers if is_main() else centers[:0])  # one host's: another may round otherwise


def _write(path: Path, labels: np.ndarray, fingerprint: str, note: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, lambda aside: write_labelling(aside, labels, fingerprint, note))


def _clusters(
    settings: ClusterContrast, network: Network, variables: Variables, records: Records, bar: ProgressBar
) -> tuple[np.ndarray, np.ndarray]:
    """The features of all images, and the cluster of each; a damaged image that is passed over is in none."""
    asked = settings.clustering
    if asked.by == "denoise":
        tracked = tracked_features(settings, network, variables, records, bar)
        with bar("denoising for clusters", settings.denoising.levels + 1) as progress:
            denoised = denoise(*tracked, settings.denoising, progress)
        for warning in denoised.warnings if is_main() else ():
            print(f"cion: {warning}", file=sys.stderr)
        return tracked.features, denoised.labels
    title = "embedding images for clusters"
    features, whole = embed_passing(settings, network, variables, records.in_order(), bar, title)
    labels = np.full(len(records), -1, np.int64)
    labels[whole] = _neighbours(settings, features[whole], most_clusters(settings, records), bar)
    return features, labels


def _neighbours(settings: ClusterContrast, features: np.ndarray, most: int, bar: ProgressBar) -> np.ndarray:
    """Clusters by DBSCAN, at most so many. Process 0 makes them for all: another's processor may round otherwise."""
    asked = settings.clustering
    made = [np.empty(0, np.int64)]

    def make() -> None:
        with bar("distances for clusters", len(features)) as progress:
            graph = jaccard_graph(features, k1=asked.k1, k2=asked.k2, eps=asked.eps, progress=progress)
        labels = dbscan(graph, asked.eps, asked.min_samples).astype(np.int64)
        labels[labels >= most] = -1  # more than this there are only of clusters in pieces
        made[0] = labels

    on_main(make)
    return all_gather(made[0])


def _check(settings: ClusterContrast, labels: np.ndarray, what: str) -> None:
    """Refuse clusters that no batch can be made of."""
    clusters = int(labels.max(initial=-1)) + 1
    people = settings.batch // settings.instances
    smaller = "raise --eps, or lower --min-samples" if settings.clustering.by == "dbscan" else "lower --min-images"
    if not clusters:
        raise UserError(f"{what} makes no cluster of {len(labels):,} images; {smaller}")
    if clusters == 1:
        raise UserError(f"{what} makes one cluster of all {len(labels):,} images; lower --eps")
    if clusters < people:
        raise UserError(
            f"{what} makes {clusters:,} clusters of {len(labels):,} images, and a batch of {settings.batch} with "
            f"{settings.instances} of each needs {people}; choose --batch {clusters * settings.instances} at the most, "
            f"or {smaller}"
        )
