"""Pre-training as a method of the trainer: who counts as the same person, which K when, and when labels are new."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from cion_jax.config import Pretraining
from cion_jax.data.files import Folder
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.denoise.denoise import check_settings
from cion_jax.errors import UserError
from cion_jax.hosts import Facts
from cion_jax.models.zoo import Backbone, Variables, backbone, check_name
from cion_jax.pretrain.flops import step_flops
from cion_jax.pretrain.schedules import StepValues, values_at
from cion_jax.pretrain.state import TrainState, init_state, state_from, state_specs, teacher_of
from cion_jax.pretrain.step import Step, StepConfig, train_step
from cion_jax.run.agreement import facts_of
from cion_jax.run.evaluation import check_evaluation, evaluation_scores
from cion_jax.run.fit import fitted
from cion_jax.run.loader import Batch
from cion_jax.run.method import Relabelled
from cion_jax.run.plan import Stages, check_training, stages_of
from cion_jax.run.relabel import relabel
from cion_jax.run.run_dir import TEACHER
from cion_jax.run.sharding import local_copy
from cion_jax.run.trainer import train
from cion_jax.terminal import ProgressBar
from cion_jax.weights.file import body_of, load

#: Shares of the epochs after which `auto` makes labels anew.
RELABEL_AT = (0.30, 0.48, 0.65)


def pretrain(settings: Pretraining, data: Folder, out: Path, *, profile_steps: int = 0) -> bool:
    """Train by these settings. The other arguments, and what is returned, are those of `run.trainer.train`."""
    return train(pretraining(settings), data, out, profile_steps=profile_steps)


@dataclass(frozen=True)
class PretrainingMethod:
    """Identity-guided self-distillation; see `run.method.Method` for what each part is."""

    settings: Pretraining
    model: Backbone
    start: Variables = field(default_factory=dict, repr=False)
    """Those of the backbone that it begins with; none for fresh ones."""
    weights_file: str = TEACHER
    chosen_by: None = None

    def stages(self, records: Records) -> Stages:
        """Stages by K and by relabelling."""
        settings = self.settings
        relabel_at = relabel_epochs(settings, records)
        if settings.shuffle_window and relabel_at:
            raise UserError(
                f"shuffle_window is {settings.shuffle_window}, but relabel makes new labels at epochs {relabel_at}, "
                "which scatters people; choose --shuffle-window 0, or give labels that stay with --labels, or choose "
                "--level tracklet"
            )
        return stages_of([instances_at(settings, epoch) for epoch in range(settings.epochs)], relabel_at)

    def first_labels(self, records: Records) -> np.ndarray:
        """Labels at the level that the settings ask for."""
        return first_labels(self.settings, records)

    def with_batch(self, batch: int) -> "PretrainingMethod":
        """For a forecast of memory."""
        return replace(self, settings=replace(self.settings, batch=batch))

    def init(self, key: Array, start: Variables | None = None) -> TrainState:
        """Student and teacher with the same weights: fresh ones, or the given ones of the backbone and a fresh head."""
        settings = self.settings
        state = init_state(self.model, settings.head, settings.optimization, key)
        return state_from(start, teacher_of(state)[1], settings.optimization) if start else state

    def specs(self, state: TrainState) -> TrainState:
        """Prototypes are split over `model`."""
        return state_specs(state)

    def step(self, instances: int, mesh: Mesh, phase: Hashable = None) -> Step:
        """The step of `pretrain.step`."""
        return train_step(StepConfig(self.settings, self.model, instances, mesh))

    def phase(self, values: StepValues) -> None:
        """One program serves all."""

    def inputs(self, batch: Batch) -> Array:
        """The images: who is on them follows from their order."""
        return batch.images

    def values_at(self, epoch: int, batch: int, batches: int) -> StepValues:
        """Learning rate, weight decay and the teacher's momentum."""
        return values_at(self.settings.optimization, self.settings.batch, self.settings.epochs, epoch, batch, batches)

    def flops(self) -> float:
        """Of student and teacher."""
        return step_flops(self.settings, self.model)

    def export(self, state: TrainState) -> tuple[Variables, Variables | None]:
        """The teacher."""
        return teacher_of(state)

    def relabel(self, state: TrainState, records: Records, out: Path, epoch: int, bar: ProgressBar) -> Relabelled:
        """Denoising among the teacher's features."""
        labels = relabel(self.settings, self.model, local_copy(self.export(state)[0]), records, out, epoch, bar)
        return Relabelled(labels, state)

    def scores(self, state: TrainState, epochs: int, bar: ProgressBar) -> dict[str, float]:
        """The teacher's, in the evaluation set."""
        return evaluation_scores(self.settings, epochs, self.model, lambda: local_copy(self.export(state)[0]), bar)


def pretraining(settings: Pretraining, devices: Sequence[jax.Device] | None = None) -> PretrainingMethod:
    """The method for settings and devices, by default those that are there; settings that cannot work are refused
    before anything is computed."""
    there = devices or jax.devices()

    check(settings, len(there))
    start = start_of(settings, model_of(settings, there[0].platform))

    def make(settings: Pretraining) -> PretrainingMethod:
        return PretrainingMethod(settings, model_of(settings, there[0].platform), start)

    settings = fitted(settings, counts_of(settings), make, devices)
    check(settings, len(there))
    method = make(settings)
    check_sizes(settings, method.model)
    check_evaluation(settings)
    return method


def model_of(settings: Pretraining, platform: str | None = None) -> Backbone:
    """The backbone, with tables of positions for the global crops; traced for a platform, by default that of JAX."""
    options: dict[str, Any] = {"remat": True} if settings.remat else {}
    return backbone(settings.backbone, image_size=settings.crops.global_size, platform=platform, **options)


def start_of(settings: Pretraining, model: Backbone) -> Variables:
    """The variables that the settings begin with; none where they are fresh. Weights that do not fit are refused."""
    if settings.weights is None:
        return {}
    weights = load(settings.weights)
    network = weights.network
    if network.name != settings.backbone:
        raise UserError(f"{settings.weights}: weights of {network.name}; give --backbone {network.name}")
    if (network.mean, network.std) != (model.mean, model.std):
        raise UserError(f"{settings.weights}: made for pixels of another scale; pre-training keeps that of ImageNet")
    return body_of(weights, model)


def instances_at(settings: Pretraining, epoch: int) -> int:
    """K in an epoch."""
    if settings.level == "instance":
        return 1
    return [count for begin, count in zip(settings.stages, settings.instances, strict=True) if begin <= epoch][-1]


def relabel_epochs(settings: Pretraining, records: Records) -> tuple[int, ...]:
    """The epochs at which labels are made anew, as the settings name them or as `auto` finds them for the records."""
    if settings.relabel != "auto":
        return settings.relabel
    if settings.level != "identity" or settings.labels is not None or _has_identities(records):
        return ()
    epochs = {max(1, round(share * settings.epochs)) for share in RELABEL_AT}
    return tuple(sorted(epoch for epoch in epochs if epoch < settings.epochs))


def _has_identities(records: Records) -> bool:
    return bool(records.index["identity"].max(initial=-1) >= 0)


def first_labels(settings: Pretraining, records: Records) -> np.ndarray:
    """Who counts as the same person at the start, at the level that the settings ask for; -1 is left out."""
    if settings.labels is not None and settings.level != "identity":
        raise UserError(f"labels are for the identity level, not for {settings.level}; leave out one of the two")
    if settings.level == "instance":
        return np.arange(len(records))
    if settings.labels is not None:
        return read_labelling(settings.labels, records.card.fingerprint, len(records))
    if settings.level == "tracklet" or relabel_epochs(settings, records):
        return np.array(records.index["tracklet"], np.int64)
    if not _has_identities(records):
        raise UserError(
            f"{records.folder}: nobody in split {records.split} has an identity, and {settings.epochs} epochs with "
            f"relabel {settings.relabel} make no labels; give a labelling with --labels, or --relabel auto with at "
            "least 2 epochs, or choose --level tracklet"
        )
    return np.array(records.index["identity"], np.int64)


def facts(settings: Pretraining, data: Folder) -> Facts:
    """What all processes must have in common; what can be refused without knowing their devices is."""
    check(settings, None)
    check_name(settings.backbone)
    check_evaluation(settings)
    records = Records(data)
    return facts_of(settings, records, first_labels(settings, records))


def counts_of(settings: Pretraining) -> set[int]:
    """Each K of the run."""
    return {instances_at(settings, epoch) for epoch in range(settings.epochs)}


def check(settings: Pretraining, devices: int | None) -> None:
    """Refuse what cannot work, by name, before anything is computed; None are devices that are not known yet."""
    if len(settings.stages) != len(settings.instances) or not settings.stages or settings.stages[0] != 0:
        raise UserError(
            f"stages {settings.stages} and instances {settings.instances} must pair up, the first at epoch 0"
        )
    if list(settings.stages) != sorted(set(settings.stages)) or min(settings.instances) < 1:
        raise UserError(f"stages {settings.stages} must rise, and instances {settings.instances} be positive")
    check_training(settings, devices, counts_of(settings))
    if settings.relabel != "auto":
        _check_relabel(settings, settings.relabel)
    check_settings(settings.denoising)
    if settings.head.prototypes % settings.model_axis:
        raise UserError(f"{settings.head.prototypes} prototypes cannot be shared by {settings.model_axis} devices")


def _check_relabel(settings: Pretraining, epochs: tuple[int, ...]) -> None:
    if epochs and settings.level != "identity":
        raise UserError(f"relabel is for the identity level, not for {settings.level}; leave out one of the two")
    if not all(a < b for a, b in pairwise((0, *epochs, settings.epochs))):
        raise UserError(f"relabel {epochs} must rise, and lie between epoch 1 and {settings.epochs - 1}")


def check_sizes(settings: Pretraining, model: Backbone) -> None:
    """Refuse sizes of crops that the backbone cannot take."""
    model.width(settings.crops.global_size)
    if settings.crops.local_crops:
        model.width(settings.crops.local_size)
