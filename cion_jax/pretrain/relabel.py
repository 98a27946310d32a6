"""New labels while training: the teacher embeds the images, and denoising goes one level further than the time before.

RUN/labels/epoch-00040.npz    the labels from that epoch on: a labelling like any other, with the noise of each level
"""

from dataclasses import replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from cion_jax.aside import write_aside
from cion_jax.config import Pretraining
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.denoise.labelling import denoise
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import features
from cion_jax.evaluate.trial import Showing
from cion_jax.hosts import gather, leading
from cion_jax.models.zoo import Backbone, Variables


def relabelled(
    settings: Pretraining,
    model: Backbone,
    teacher: Variables,
    records: Records,
    out: Path,
    epoch: int,
    showing: Showing,
) -> np.ndarray:
    """Who is who from an epoch on, as the teacher sees it; also written into the run's folder."""
    seen, damaged = _features(settings, model, teacher, records, showing)
    video, tracklet, frame = (np.array(records.index[name]) for name in ("video", "tracklet", "frame"))
    tracklet[damaged] = -1
    level = min(settings.relabel.index(epoch) + 1, settings.denoising.levels)
    asked = replace(settings.denoising, levels=level)  # type: ignore[arg-type]
    with showing(f"denoising, level {level} of {settings.denoising.levels}", level + 1) as done:
        found = denoise(seen, video, tracklet, frame, asked, done)
    if found.labels.max() < 0:
        raise UserError(
            f"{out}: epoch {epoch}: denoising left nobody of {len(records):,} images; raise sigma, lower min-images"
        )
    if leading():
        path, told = labels_path(out, epoch), {"made by": "cion pretrain", "epoch": epoch} | found.told()
        path.parent.mkdir(exist_ok=True)
        made_for, noise = records.card.fingerprint, np.array(found.noise)
        write_aside(path, lambda aside: write_labelling(aside, found.labels, made_for, told, noise=noise))
    return found.labels


def labels_path(out: Path, epoch: int) -> Path:
    """Where a run keeps the labels that it made at the beginning of an epoch."""
    return out / "labels" / f"epoch-{epoch:05d}.npz"


class _Passing:
    """Records of which damaged ones are blank, and noted."""

    def __init__(self, records: Records):
        self._records = records
        self.damaged: list[int] = []

    def __len__(self) -> int:
        return len(self._records)

    def where(self, number: SupportsIndex) -> str:
        return self._records.where(number)

    def pixels_into(self, out: np.ndarray, number: SupportsIndex) -> None:
        try:
            self._records.pixels_into(out, number)
        except DamagedRecordError:
            out[:] = 0
            self.damaged.append(int(number))


def _features(
    settings: Pretraining, model: Backbone, teacher: Variables, records: Records, showing: Showing
) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's features of all images, and which of them are damaged, where those are to be passed over."""
    in_order = records.in_order()
    passing = _Passing(in_order)
    images = passing if settings.skip_damaged else in_order
    with showing("embedding images for new labels", len(records)) as done:
        found = features(
            model, teacher, images, image_size=settings.crops.global_size, precision=settings.precision, done=done
        )
    return found, gather(np.array(passing.damaged, np.int64))
