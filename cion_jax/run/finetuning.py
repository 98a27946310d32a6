"""Fine-tuning as methods of the trainer: from a backbone to a network that ranks, with labels or without."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from cion_jax.config import Bnneck, ClusterContrast, Finetuning, Mgn, Supervised
from cion_jax.data.files import Folder
from cion_jax.data.records import Records
from cion_jax.denoise.denoise import check_settings
from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.finetune.encoder import encoder
from cion_jax.finetune.memory import update_hard, update_plain
from cion_jax.finetune.mgn import mgn
from cion_jax.finetune.network import Finetuned
from cion_jax.finetune.optimizer import bnneck_optimizer, cluster_contrast_optimizer, mgn_optimizer
from cion_jax.finetune.schedules import bnneck_values_at, cluster_contrast_values_at, mgn_values_at
from cion_jax.finetune.step import FinetuneState, Labelled, StepConfig, finetune_step, init_state
from cion_jax.hosts import Facts
from cion_jax.models.complexity import countable, multiply_adds
from cion_jax.models.network import Network
from cion_jax.models.zoo import Backbone, Variables, backbone
from cion_jax.run.agreement import facts_of
from cion_jax.run.clusters import cluster, most_clusters
from cion_jax.run.evaluation import check_evaluation, evaluation_scores, scores_of_some
from cion_jax.run.fit import fitted
from cion_jax.run.learned import Aside, Learned, divide
from cion_jax.run.loader import Batch
from cion_jax.run.method import Relabelled, Step
from cion_jax.run.plan import Stages, check_training, stages_of
from cion_jax.run.run_dir import FINETUNED
from cion_jax.run.sharding import global_array, local_copy
from cion_jax.run.trainer import train
from cion_jax.terminal import ProgressBar
from cion_jax.weights.file import body_of, load

#: The phase in which what came with the backbone stands still.
FROZEN = "frozen"


def finetune(settings: Finetuning, data: Folder, out: Path, *, profile_steps: int = 0) -> bool:
    """Train by these settings. The other arguments, and what is returned, are those of `run.trainer.train`."""
    return train(finetuning(settings, data), data, out, profile_steps=profile_steps)


@dataclass(frozen=True)
class FinetuningMethod:
    """The same for all methods of fine-tuning; see `run.method.Method` for what each part is."""

    settings: Finetuning
    model: Finetuned
    start: Variables = field(repr=False)
    """Those of the backbone."""
    labels: np.ndarray = field(repr=False)
    """Who is who at the start."""
    aside: Aside | None = field(default=None, repr=False)
    """Those who are scored after epochs."""
    clusters: int = 0
    """Rows of the memory, where the method has one."""
    weights_file: str = FINETUNED

    @property
    def chosen_by(self) -> str | None:
        """The score of those who were set aside, or in the test set where the settings say so."""
        if self.settings.select == "test":
            return "mAP"
        return None if self.aside is None else "validation_mAP"

    def stages(self, records: Records) -> Stages:
        """One K; without labels, clusters anew in each epoch."""
        epochs = range(self.settings.epochs)
        return stages_of([self.settings.instances for _ in epochs], epochs if self.clusters else ())

    def first_labels(self, records: Records) -> np.ndarray:
        """Whom it learns from; without labels everybody is alone until the first clusters are made."""
        return self.labels

    def with_batch(self, batch: int) -> "FinetuningMethod":
        """For a forecast of memory."""
        return replace(self, settings=replace(self.settings, batch=batch))

    def init(self, key: Array, start: Variables) -> FinetuneState:
        """The backbone's weights, and fresh ones around it."""
        return init_state(self._config(), self.model.begin(key, start), self.values_at(0, 0, 1), self.clusters)

    def specs(self, state: FinetuneState) -> FinetuneState:
        """Every device has everything."""
        return jax.tree.map(lambda _: PartitionSpec(), state)

    def step(self, instances: int, mesh: Mesh, phase: Hashable = None) -> Step:
        """The step of `finetune.step`."""
        return finetune_step(self._config(), frozen=phase == FROZEN)

    def phase(self, values: Any) -> Hashable:
        """MGN has a frozen start, in which nothing of the backbone is computed backwards."""
        return FROZEN if getattr(values, "frozen", False) else None

    def inputs(self, batch: Batch) -> Labelled:
        """Images, and who is on them."""
        return Labelled(batch.images, batch.labels)

    def values_at(self, epoch: int, batch: int, batches: int) -> Any:
        """Learning rates."""
        return _way(self.settings).values_at(epoch, batch, batches)

    def flops(self) -> float:
        """Forward, and a backward of twice its cost."""
        body = countable(self.model.backbone)
        image = jax.ShapeDtypeStruct((1, *self.model.image_size, 3), jnp.float32)
        traced = jax.make_jaxpr(network_of(self.settings, body, 0).apply)(self.model.shapes(), image)
        return 2.0 * 3 * self.settings.batch * multiply_adds(traced.jaxpr)

    def export(self, state: FinetuneState) -> tuple[Variables, None]:
        """All of it."""
        return {"params": state.params, "batch_stats": state.batch_stats}, None

    def relabel(self, state: FinetuneState, records: Records, out: Path, epoch: int, bar: ProgressBar) -> Relabelled:
        """New clusters, and a memory that holds their centers."""
        assert isinstance(self.settings, ClusterContrast)
        variables = local_copy(self.export(state)[0])
        labels, centers_CxD = cluster(self.settings, self.model, variables, records, out, epoch, bar)
        memory = np.zeros(state.memory.shape, np.float32)
        memory[: len(centers_CxD)] = centers_CxD
        place = state.memory.sharding
        return Relabelled(labels, state._replace(memory=global_array(memory.shape, place, lambda part: memory[part])))

    def scores(self, state: FinetuneState, epochs: int, bar: ProgressBar) -> dict[str, float]:
        """In the evaluation set, and among those who were set aside."""
        settings = self.settings

        def variables() -> Variables:
            return local_copy(self.export(state)[0])

        result = evaluation_scores(settings, epochs, self.model, variables, bar)
        if self.aside is not None and (epochs % settings.evaluate_every == 0 or epochs == settings.epochs):
            summary = scores_of_some(settings, self.model, variables(), *self.aside, bar)
            result |= {f"validation_{name}": value for name, value in summary.items()}
        return result

    def _config(self) -> StepConfig:
        settings = self.settings
        remember = None
        if isinstance(settings, ClusterContrast):
            update = update_hard if settings.memory_update == "hard" else update_plain
            remember = partial(update, momentum=settings.memory_momentum)
        pictures = replace(settings.augmentation, mean=self.model.mean, std=self.model.std)
        return StepConfig(self.model, pictures, settings.precision, settings.seed, _way(settings).optimizer, remember)


class _Way(NamedTuple):
    """What is particular to a method."""

    network: Callable[[Backbone, int], Finetuned]
    """From a backbone and a number of classes."""
    optimizer: Callable[[Any], Any]
    """From a step's values."""
    values_at: Callable[[int, int, int], Any]
    """From an epoch, a batch, and the batches of an epoch."""


def _way(settings: Finetuning) -> _Way:
    if isinstance(settings, Mgn):
        rates = partial(mgn_values_at, settings.optimization, settings.epochs)
        return _Way(mgn, partial(mgn_optimizer, settings.optimization), rates)
    if isinstance(settings, ClusterContrast):
        return _Way(
            lambda body, _: encoder(body, settings.temperature, settings.exponent),
            partial(cluster_contrast_optimizer, settings.optimization),
            lambda epoch, *_: cluster_contrast_values_at(settings.optimization, epoch),
        )
    assert isinstance(settings, Bnneck)
    return _Way(
        lambda body, classes: BNNeck(body, classes, settings.feature),
        partial(bnneck_optimizer, settings.optimization),
        lambda epoch, *_: bnneck_values_at(settings.optimization, settings.batch, settings.epochs, epoch),
    )


def finetuning(settings: Finetuning, data: Folder, devices: Sequence[jax.Device] | None = None) -> FinetuningMethod:
    """The method for settings, data and devices, by default those that are there; what cannot work is refused before
    anything is computed."""
    there = devices or jax.devices()
    _check(settings, len(there))
    records = Records(data)
    learned = _learned(settings, records)
    weights = None if settings.weights is None else load(settings.weights)
    name = settings.backbone if weights is None else weights.network.name
    body = _body(settings, name, None if weights is None else weights.network, there[0].platform)
    network = network_of(settings, body, learned.classes)
    network.width(network.image_size)
    start = body.init(jax.random.key(settings.seed)) if weights is None else body_of(weights, body)
    clusters = most_clusters(settings, records) if isinstance(settings, ClusterContrast) else 0

    def make(settings: Finetuning) -> FinetuningMethod:
        return FinetuningMethod(settings, network, start, *learned, clusters)

    settings = fitted(settings, {settings.instances}, make, devices)
    check_training(settings, len(there), {settings.instances})
    return make(settings)


def facts(settings: Finetuning, data: Folder) -> Facts:
    """What all processes must have in common; what can be refused without knowing their devices is."""
    _check(settings, None)
    records = Records(data)
    return facts_of(settings, records, _learned(settings, records).labels)


def _learned(settings: Finetuning, records: Records) -> Learned:
    """Whom it learns from."""
    return divide(settings, records) if isinstance(settings, Supervised) else Learned(np.arange(len(records)), None)


def _body(settings: Finetuning, name: str, source: Network | None, platform: str) -> Backbone:
    """The backbone to train on, in the forms of a platform, which begins with the weights of a network."""
    pictures = settings.augmentation
    scale = pictures if source is None or settings.pixel_scale == "augmentation" else source
    options: dict[str, Any] = {"remat": True} if settings.remat else {}
    if settings.resample_positions:
        options["always_resample"] = True
    body = backbone(name, image_size=pictures.size, platform=platform, **options)
    tested = "bilinear" if isinstance(settings, Bnneck) else settings.resize  # as in the published code
    return replace(body, mean=scale.mean, std=scale.std, resize=tested)


def network_of(settings: Finetuning, body: Backbone, classes: int) -> Finetuned:
    """The network that settings ask for, on a backbone."""
    return _way(settings).network(body, classes)


def _check(settings: Finetuning, devices: int | None) -> None:
    """Refuse, by name, what cannot work, such as numbers that are no shares, or a choice by a test set that is not
    there; None are devices not known yet."""
    check_training(settings, devices, {settings.instances})
    check_evaluation(settings)
    if settings.select == "test" and settings.evaluate is None:
        raise UserError("select is test, and there is no test set; give it with --evaluate, or leave out --select")
    if isinstance(settings, ClusterContrast):
        check_settings(settings.denoising)
    if isinstance(settings, Supervised):
        for name in ("identities_share", "images_share"):
            if not 0 < getattr(settings, name) <= 1:
                raise UserError(f"{name} is {getattr(settings, name):g}; give a share above 0 and at most 1")
        if not 0 <= settings.validation < 1:
            raise UserError(f"validation is {settings.validation:g}; give a share of at least 0 and below 1")
