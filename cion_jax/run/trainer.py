"""The loop: batches in, checkpoints and a journal out, until the last epoch, whatever happens in between.

RUN/settings.json          what was asked for
RUN/origin.json            which data, machine and software it was begun with
RUN/checkpoints/           what a repeated command goes on from
RUN/teacher.safetensors    the teacher's weights, anew after each epoch
RUN/labels/                who is who from the epochs on at which labels are made anew
RUN/metrics.jsonl, RUN/tensorboard/
"""

import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cion_jax.config import Pretraining
from cion_jax.data.files import Folder
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.hosts import is_main, local_copy, on_main, replicate
from cion_jax.models.zoo import Backbone
from cion_jax.pretrain.schedules import values_at
from cion_jax.pretrain.state import TrainState, fresh, placement, shapes, teacher_of
from cion_jax.pretrain.step import StepConfig, train_step
from cion_jax.run.checkpoints import Checkpoint, Checkpoints, Position, is_finite
from cion_jax.run.evaluation import teacher_scores
from cion_jax.run.journal import Journal, Silence, profile
from cion_jax.run.loader import device_batches
from cion_jax.run.plan import (
    epoch_batches,
    flops,
    instances_at,
    labels_of,
    prepared,
    relabel_epochs,
    sampler_of,
    segments,
)
from cion_jax.run.relabel import relabelled
from cion_jax.run.run_dir import TEACHER, claim, note_origin
from cion_jax.run.signals import asked_to_stop
from cion_jax.weights.file import Weights, save

#: Steps that are under way before the oldest one's metrics are waited for: enough for the device never to stand idle.
AHEAD = 2


def pretrain(
    settings: Pretraining,
    data: Folder,
    out: Path,
    *,
    profile_steps: int = 0,
) -> bool:
    """Train a backbone on a dataset's train split and leave all that came of it in a folder.

    A run that was stopped or killed goes on where its last checkpoint was written, to the same numbers.

    Args:
        settings: What to train, and how.
        data: A dataset folder.
        out: The run's folder.
        profile_steps: Steps to trace for TensorBoard, after the first few.

    Returns:
        Whether the run came to its end; if not, it was asked to stop and has written a checkpoint.
    """
    mesh, records, model = prepared(settings, data)
    on_main(lambda: claim(out, settings))
    on_main(lambda: note_origin(out, data, records.card.fingerprint))
    with Checkpoints(out, settings.keep, settings.keep_every) as checkpoints:
        checkpoint = _begin(settings, model, mesh, records, checkpoints)
        begun = int(checkpoint.state.step)
        total = begun + _steps_left(settings, records, checkpoint)
        verb = "was finished with" if begun == total else "goes on after" if begun else "begins with"
        if is_main():
            print(f"{out}: {verb} step {begun:,} of {total:,}", file=sys.stderr)
        with (
            Journal(out, total, begun, settings.batch, flops(settings, model)) if is_main() else Silence() as journal,
            profile(out, begun, profile_steps) as traced,
            asked_to_stop() as asked,
        ):
            loop = _Loop(settings, model, mesh, records, out, checkpoints, journal, traced)
            return loop.run(checkpoint, asked)


def _begin(
    settings: Pretraining, model: Backbone, mesh: Mesh, records: Records, checkpoints: Checkpoints
) -> Checkpoint:
    """The newest whole checkpoint, or a fresh start."""
    make = partial(fresh, model, settings.head, settings.optimization)
    wanted = shapes(model, settings.head, settings.optimization)
    places = placement(mesh, wanted)
    template = jax.tree.map(lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), wanted, places)
    found, complaints = checkpoints.restore(template)
    for complaint in complaints:
        print(f"cion: {complaint}", file=sys.stderr)
    note = {"data": records.card.fingerprint}
    if found is None:
        state = jax.jit(make, out_shardings=places)(jax.random.key(settings.seed))
        return Checkpoint(state, labels_of(settings, records), Position(0, 0), note)
    if found.note["data"] != note["data"]:
        raise UserError(f"{records.folder}: not the data that this run was begun with; give that, or another --out")
    return found._replace(note=note)


def _steps_left(settings: Pretraining, records: Records, checkpoint: Checkpoint) -> int:
    """Steps to the end; where epochs are passes over the data, if labels stay as they are."""

    def batches(epochs: range) -> int:
        order = sampler_of(settings, records, checkpoint.labels, instances_at(settings, epochs.start))
        return len(epochs) * epoch_batches(settings, order)

    return sum(map(batches, segments(settings, checkpoint.position.epoch, ()))) - checkpoint.position.batch


@dataclass
class _Loop:
    """What a run holds on to while its state moves on."""

    settings: Pretraining
    model: Backbone
    mesh: Mesh
    records: Records
    out: Path
    checkpoints: Checkpoints
    journal: Journal
    traced: Callable[[int], None]
    under_way: deque[tuple[int, float, dict[str, Any], float]] = field(default_factory=deque)
    """Number, time in epochs, metrics and waiting of the steps that the device may still be busy with."""
    last: dict[str, float] = field(default_factory=dict)
    """Metrics of the last step that is done."""
    compiled: dict[int, Any] = field(default_factory=dict)
    """The step for each K."""

    def run(self, checkpoint: Checkpoint, asked: Callable[[int], bool]) -> bool:
        """Train from a checkpoint to the end, or until asked to stop; say which."""
        settings, (state, labels, position, note) = self.settings, checkpoint
        number = int(state.step)
        anew = relabel_epochs(settings, self.records)
        for epochs in segments(settings, position.epoch, anew):
            if position.batch == 0 and epochs.start in anew:
                teacher, _ = teacher_of(state)
                labels = relabelled(
                    settings,
                    self.model,
                    local_copy(teacher),
                    self.records,
                    self.out,
                    epochs.start,
                    self.journal.progress_bar,
                )
            instances = instances_at(settings, epochs.start)
            order, step = sampler_of(settings, self.records, labels, instances), self._step(instances, state)
            batches = epoch_batches(settings, order)
            for images, damaged, waited in device_batches(
                settings, self.mesh, self.records, order, epochs, position.batch
            ):
                now = values_at(settings.optimization, settings.batch, settings.epochs, *position, batches)
                state, metrics = step(state, images, replicate(now, self.mesh))
                told = now.as_dict() | {"instances": instances, "damaged": damaged}
                moment = position.epoch + (position.batch + 1) / batches
                position, number = position.after(batches), number + 1
                if position.batch == 0:
                    teacher, _ = teacher_of(state)
                    told |= teacher_scores(
                        settings, position.epoch, self.model, local_copy(teacher), self.journal.progress_bar
                    )
                self._note(number - 1, moment, metrics | told, waited)
                stopping = asked(number)
                if stopping or position.batch == 0 or number % settings.checkpoint_steps == 0:
                    self._save(Checkpoint(state, labels, position, note))
                if stopping and position.epoch < settings.epochs:
                    return False
        return True

    def _step(self, instances: int, state: TrainState) -> Any:
        if instances not in self.compiled:
            config = StepConfig(self.settings, self.model, instances, self.mesh)
            self.compiled[instances] = train_step(config, jax.eval_shape(lambda: state))
        return self.compiled[instances]

    def _note(self, number: int, epoch: float, metrics: dict[str, Any], waited: float) -> None:
        """Put a step's metrics into the journal as soon as that does not hold up the device."""
        self.under_way.append((number, epoch, metrics, waited))
        if len(self.under_way) > AHEAD:
            self._settle_one()

    def _settle_one(self) -> None:
        number, epoch, metrics, waited = self.under_way.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self.traced(number)
        self.journal.record(number, epoch, values, waited)
        if lost := {name: value for name, value in values.items() if not math.isfinite(value)}:
            self._stop(number, ", ".join(f"{name} is {value}" for name, value in lost.items()))
        self.last = values

    def _stop(self, number: int, lost: str) -> NoReturn:
        newest = self.checkpoints.newest
        good = (
            "there is no checkpoint yet" if newest is None else f"the last good checkpoint is that of step {newest:,}"
        )
        was = ", ".join(f"{name} {value:.4g}" for name, value in self.last.items())
        raise UserError(f"{self.out}: step {number:,}: {lost}; {good}. The step before: {was or 'none'}")

    def _save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint of a state that has been seen to be finite; after an epoch, weights before.

        A run that is killed between the two writes both again; the other way round it could end without its weights.
        """
        while self.under_way:
            self._settle_one()
        if not is_finite(checkpoint.state):  # what metrics do not show, as statistics of features that overflow
            self._stop(int(checkpoint.state.step), "parameters or statistics are no longer finite")
        if checkpoint.position.batch == 0:
            body, head = jax.device_put(teacher_of(checkpoint.state), NamedSharding(self.mesh, PartitionSpec()))
            on_main(lambda: save(self.out / TEACHER, Weights(self.model, local_copy(body), local_copy(head))))
        self.checkpoints.save(checkpoint)
