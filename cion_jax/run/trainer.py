"""The trainer: batches in, checkpoints and a journal out, until the last epoch, whatever happens in between.

RUN/settings.json          what was asked for
RUN/origin.json            which data, machine and software it was begun with
RUN/checkpoints/           what a repeated command goes on from
RUN/*.safetensors          the weights, anew after each epoch
RUN/labels/                who is who from the epochs on at which labels are made anew
RUN/metrics.jsonl, RUN/tensorboard/, and RUN/tracking.json where a service is told
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
from jax.sharding import Mesh

from cion_jax.data.files import Folder
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.hosts import is_main, main_writes, on_main
from cion_jax.run.checkpoints import Checkpoint, Checkpoints, Position, is_finite
from cion_jax.run.journal import Journal, Silence
from cion_jax.run.loader import device_batches
from cion_jax.run.method import Method, State, abstract_state, jit_step
from cion_jax.run.plan import Stages, epoch_batches, remaining, sampler_for
from cion_jax.run.profile import profile
from cion_jax.run.run_dir import BEST, claim, flat, note_origin
from cion_jax.run.sharding import local_copy, make_mesh, replicate, replicated, shardings_of
from cion_jax.run.signals import stop_requested
from cion_jax.run.tracking import Service, tracked
from cion_jax.weights.file import Weights, save

#: Steps that are under way before the oldest one's metrics are waited for: enough for the device never to stand idle.
AHEAD = 2


def train(method: Method, data: Folder, out: Path, *, profile_steps: int = 0, services: Sequence[Service] = ()) -> bool:
    """Train by a method on a dataset's train split, and leave all that came of it in a folder.

    A run that was stopped or killed goes on where its last checkpoint was written, to the same numbers.

    Args:
        method: What is trained, and how.
        data: A dataset folder.
        out: The run's folder.
        profile_steps: Steps to trace for TensorBoard, after the first few.
        services: Where the journal's numbers are shown too; see `run.tracking`.

    Returns:
        Whether the run came to its end; if not, it was asked to stop and has written a checkpoint.
    """
    settings = method.settings
    mesh = make_mesh(jax.device_count(), settings.model_axis)
    records = Records(data)
    stages = method.stages(records)
    on_main(lambda: claim(out, settings))
    with main_writes(out), Checkpoints(out, settings.keep, settings.keep_every) as checkpoints:
        on_main(lambda: note_origin(out, data, records.card.fingerprint))
        template = abstract_state(method, mesh)
        checkpoint = _restore_or_init(method, template, records, checkpoints)
        first_step = int(checkpoint.state.step)
        total_steps = first_step + _steps_left(method, records, stages, checkpoint)
        if is_main():
            verb = "goes on after" if first_step else "begins with"
            verb = "was finished with" if first_step == total_steps else verb
            print(f"{out}: {verb} step {first_step:,} of {total_steps:,}", file=sys.stderr)
        with (
            _open_journal(method, out, total_steps, first_step, services) as journal,
            profile(out, first_step, profile_steps) as profiled,
            stop_requested() as should_stop,
        ):
            trainer = _Trainer(method, mesh, template, records, stages, out, checkpoints, journal, profiled)
            return trainer.run(checkpoint, should_stop)


@contextmanager
def _open_journal(
    method: Method, out: Path, total_steps: int, first_step: int, services: Sequence[Service]
) -> Iterator[Journal]:
    """The journal of the run, which the main process keeps."""
    if not is_main():
        yield Silence()
        return
    settings = flat(asdict(method.settings))
    with (
        Journal(out, total_steps, first_step, method.settings.batch, method.flops()) as journal,
        tracked(services, out, settings, journal.say) as log,
    ):
        journal.also_log(log)
        yield journal


def _restore_or_init(method: Method, template: State, records: Records, checkpoints: Checkpoints) -> Checkpoint:
    """The newest whole checkpoint, or a fresh start."""
    checkpoint, complaints = checkpoints.restore(template)
    for complaint in complaints:
        print(f"cion: {complaint}", file=sys.stderr)
    note: dict[str, Any] = {"data": records.card.fingerprint}
    if checkpoint is None:
        init = jax.jit(method.init, out_shardings=shardings_of(template))
        state = init(jax.random.key(method.settings.seed), method.start)
        return Checkpoint(state, method.first_labels(records), Position(0, 0), note)
    if checkpoint.note["data"] != note["data"]:
        raise UserError(f"{records.folder}: not the data that this run was begun with; give that, or another --out")
    return checkpoint._replace(
        note=note | {name: checkpoint.note[name] for name in ("best",) if name in checkpoint.note}
    )


def _steps_left(method: Method, records: Records, stages: Stages, checkpoint: Checkpoint) -> int:
    """Steps to the end; where epochs are passes over the data, if labels stay as they are."""
    settings = method.settings
    steps = 0
    for stage in remaining(stages, checkpoint.position.epoch):
        sampler = sampler_for(settings, records, checkpoint.labels, stage.instances)
        steps += len(stage.epochs) * epoch_batches(settings, sampler)
    return steps - checkpoint.position.batch


class _Pending(NamedTuple):
    """A step that the device may still be busy with."""

    number: int
    epoch: float
    metrics: dict[str, Any]
    waited: float
    """Seconds of waiting for its batch."""


@dataclass
class _Trainer:
    """What a run holds on to while its state moves on."""

    method: Method
    mesh: Mesh
    template: State
    """Shapes, types and shardings of the state."""
    records: Records
    stages: Stages
    out: Path
    checkpoints: Checkpoints
    journal: Journal
    profiled: Callable[[int], None]
    pending: deque[_Pending] = field(default_factory=deque)
    last_metrics: dict[str, float] = field(default_factory=dict)
    """Of the last step that is done."""
    jitted: dict[tuple[int, Hashable], Any] = field(default_factory=dict)
    """The step for each K and phase."""
    is_best: bool = False
    """Whether the scores of the epoch that has just ended are the best until now."""

    def run(self, checkpoint: Checkpoint, should_stop: Callable[[int], bool]) -> bool:
        """Train from a checkpoint to the end, or until asked to stop; say which."""
        settings = self.method.settings
        state, labels, position, note = checkpoint
        number = int(state.step)
        for stage in remaining(self.stages, position.epoch):
            if stage.relabel and position.batch == 0:
                labels, state = self.method.relabel(
                    state, self.records, self.out, stage.epochs.start, self.journal.progress_bar
                )
            sampler = sampler_for(settings, self.records, labels, stage.instances)
            length = epoch_batches(settings, sampler)
            for batch in device_batches(
                settings, self.mesh, self.records, sampler, labels, stage.epochs, position.batch
            ):
                values = self.method.values_at(position.epoch, position.batch, length)
                step = self._step(stage.instances, self.method.phase(values))
                state, metrics = step(state, self.method.inputs(batch), replicate(values, self.mesh))
                known = values.as_dict() | {"instances": stage.instances, "damaged": batch.damaged}
                time = position.epoch + (position.batch + 1) / length
                position = position.after(length)
                number += 1
                if position.batch == 0:
                    known |= self._scores(state, position.epoch, note)
                self._note(_Pending(number - 1, time, metrics | known, batch.waited))
                stopping = should_stop(number)
                if stopping or position.batch == 0 or number % settings.checkpoint_steps == 0:
                    self._save(Checkpoint(state, labels, position, note))
                if stopping and position.epoch < settings.epochs:
                    return False
        return True

    def _step(self, instances: int, phase: Hashable) -> Any:
        if (instances, phase) not in self.jitted:
            self.journal.say("compiling the step (about a minute, unless a run before has left it)")
            self.jitted[instances, phase] = jit_step(self.method, instances, self.mesh, self.template, phase)
        return self.jitted[instances, phase]

    def _scores(self, state: State, epochs: int, note: dict[str, Any]) -> dict[str, float]:
        """The scores after so many epochs; the best one until then is noted."""
        scores = self.method.scores(state, epochs, self.journal.progress_bar)
        score = scores.get(self.method.chosen_by or "")
        self.is_best = score is not None and score > note.get("best", -math.inf)
        if self.is_best:
            note["best"] = score
        return scores

    def _note(self, step: _Pending) -> None:
        """Put a step's metrics into the journal as soon as that does not hold up the device."""
        self.pending.append(step)
        if len(self.pending) > AHEAD:
            self._finish_one()

    def _finish_one(self) -> None:
        step = self.pending.popleft()
        metrics = {name: float(value) for name, value in jax.device_get(step.metrics).items()}
        self.profiled(step.number)
        self.journal.record(step.number, step.epoch, metrics, step.waited)
        if lost := {name: value for name, value in metrics.items() if not math.isfinite(value)}:
            self._fail(step.number, ", ".join(f"{name} is {value}" for name, value in lost.items()))
        self.last_metrics = metrics

    def _fail(self, number: int, lost: str) -> NoReturn:
        newest = self.checkpoints.newest
        good = (
            "there is no checkpoint yet" if newest is None else f"the last good checkpoint is that of step {newest:,}"
        )
        before = ", ".join(f"{name} {value:.4g}" for name, value in self.last_metrics.items())
        raise UserError(f"{self.out}: step {number:,}: {lost}; {good}. The step before: {before or 'none'}")

    def _save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint of a state that has been seen to be finite; after an epoch, weights before.

        A run that is killed between the two writes both again; the other way round it could end without its weights.
        """
        while self.pending:
            self._finish_one()
        if not is_finite(checkpoint.state):  # what metrics do not show, as statistics of features that overflow
            self._fail(int(checkpoint.state.step), "parameters or statistics are no longer finite")
        if checkpoint.position.batch == 0:
            # Prototypes may be split over devices, and hosts: all of them put them together, one writes.
            whole = jax.device_put(self.method.export(checkpoint.state), replicated(self.mesh))
            origin = {"data": self.records.card.fingerprint}
            variables, head = map(local_copy, whole)
            weights = Weights(self.method.model, variables, head, origin=origin)
            for name in [self.method.weights_file, BEST][: 1 + self.is_best]:
                on_main(partial(save, self.out / name, weights))
        self.checkpoints.save(checkpoint)
