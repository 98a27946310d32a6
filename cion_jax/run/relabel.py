"""New labels while training: the teacher embeds the images, and denoising finds who is who among them.

RUN/labels/epoch-00040.npz    the labels from that epoch on: a labelling like any other, with the noise of each level
"""

import sys
from pathlib import Path

import numpy as np

from cion_jax.atomic import write_atomically
from cion_jax.config import ClusterContrast, Pretraining
from cion_jax.data.boxes import joined_tracklets
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.denoise.denoise import denoise
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.errors import UserError
from cion_jax.evaluate.colours import image_colours, matched
from cion_jax.evaluate.embed import embed_all
from cion_jax.hosts import is_main
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.run.damaged import Passing
from cion_jax.terminal import ProgressBar

#: The folder in a run for the labels that it made.
LABELS = "labels"


def relabel(
    settings: Pretraining,
    model: Network,
    teacher: Variables,
    records: Records,
    out: Path,
    epoch: int,
    bar: ProgressBar,
) -> np.ndarray:
    """Who is who from an epoch on, as the teacher sees it; also written into the run's folder."""
    tracked = tracked_features(settings, model, teacher, records, bar)
    with bar("denoising for new labels", settings.denoising.levels + 1) as progress:
        denoised = denoise(*tracked, settings.denoising, progress)
    if denoised.labels.max() < 0:
        raise UserError(
            f"{out}: epoch {epoch}: denoising left nobody of {len(records):,} images; raise sigma, lower min-images"
        )
    if is_main():
        for warning in denoised.warnings:
            print(f"cion: epoch {epoch}: {warning}", file=sys.stderr)
        path = labels_path(out, epoch)
        path.parent.mkdir(exist_ok=True)
        made_by = {"made by": "cion pretrain", "epoch": epoch} | denoised.as_dict()
        fingerprint, noise = records.card.fingerprint, np.array(denoised.noise)
        write_atomically(path, lambda aside: write_labelling(aside, denoised.labels, fingerprint, made_by, noise=noise))
    return denoised.labels


def labels_path(out: Path, epoch: int) -> Path:
    """Where a run keeps the labels that it made at the beginning of an epoch."""
    return out / LABELS / f"epoch-{epoch:05d}.npz"


def tracked_features(
    settings: Pretraining | ClusterContrast, model: Network, variables: Variables, records: Records, bar: ProgressBar
) -> TrackedFeatures:
    """A network's features of all images, as the settings for denoising ask for them, and where they were seen.

    A damaged image that is passed over has no tracklet.
    """
    images = Passing(records.in_order(), settings.skip_damaged)
    video, frame = (np.array(records.index[name]) for name in ("video", "frame"))
    tracklet = joined_tracklets(records)
    colours = None
    if settings.denoising.match_colours:
        with bar("colours of images for new labels", len(records)) as progress:
            seen = image_colours(images, model.image_size, progress=progress)
        tracklet[images.damaged()] = -1
        colours = matched(seen, video, tracklet)
    with bar("embedding images for new labels", len(records)) as progress:
        embedded = embed_all(
            model,
            variables,
            images,
            image_size=model.image_size,
            flip=settings.denoising.mirror,
            precision=settings.precision,
            colours=colours,
            progress=progress,
        )
    tracklet[images.damaged()] = -1
    return TrackedFeatures(embedded, video, tracklet, frame)
