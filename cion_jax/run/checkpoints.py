"""Checkpoints of a run: everything that the next step depends on, written while training goes on.

RUN/checkpoints/STEP/    Orbax: the train state, the labels in use, and a note (position, settings, data, digests)
RUN/damaged/STEP/        a checkpoint that could not be read back, moved out of the way

What comes back is compared with digests that were taken of the arrays in memory: a disk that flips a bit is noticed.
"""

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from cion_jax.errors import UserError
from cion_jax.hosts import is_single_process, on_main
from cion_jax.run.method import State
from cion_jax.untrusted import read_json

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax reports every save, and tracebacks of what it raises too
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # so do its tasks, of which a full disk ends many at once
_usual_hook = sys.unraisablehook


def _hear(fault: "sys.UnraisableHookArgs") -> None:
    """Files that were being written when a save failed come to their ends behind it, and find nobody who waits."""
    if "Event loop is closed" not in str(fault.exc_value):
        _usual_hook(fault)


sys.unraisablehook = _hear


class Position(NamedTuple):
    """Where in its data a run stands: the batch that comes next."""

    epoch: int
    batch: int

    def after(self, batches: int) -> "Position":
        """The position behind one batch, in an epoch of so many."""
        return Position(self.epoch, self.batch + 1) if self.batch + 1 < batches else Position(self.epoch + 1, 0)


class Checkpoint(NamedTuple):
    """What a run goes on from."""

    state: State
    labels: np.ndarray
    position: Position
    note: dict[str, Any]


class Checkpoints:
    """The checkpoints in a run's folder; use it in a `with`, at whose end all of them are on the disk."""

    def __init__(self, folder: Path, keep: int, keep_every: int):
        """`keep` newest checkpoints stay, and for good those at the end of every `keep_every` epochs (0: of none)."""
        self._folder = folder.absolute() / "checkpoints"
        latest = checkpoint_managers.LatestN(max(keep, 1))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [latest, _WholeEpochs(self._folder, keep_every)]
                ),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._explaining():
            self._manager.close()

    @property
    def newest(self) -> int | None:
        """The step of the newest checkpoint that is whole, once the one that is being written is or never will be."""
        with suppress(Exception):  # which `save` and the end of the `with` tell of
            self._manager.wait_until_finished()
        return max(ocp.utils.checkpoint_steps(self._folder), default=None)

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint; the state may be used up as soon as this returns."""
        state, labels, position, note = checkpoint
        note = {**note, "position": position._asdict()}
        digests = digests_of(state, labels, note)
        with self._explaining():
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    labels=ocp.args.StandardSave({"labels": labels}),
                    note=ocp.args.JsonSave({"note": note, "digests": digests}),
                ),
            )

    def restore(self, template: State) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, and a line for every newer one that is not.

        `template` has the shapes, types and places that the state is to have; they need not be those it was saved
        from. A damaged checkpoint is moved to RUN/damaged.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                checkpoint = self.read(step, template)
            except Exception as error:  # whatever Orbax makes of damaged files
                damaged[step] = f"the checkpoint of step {step:,} is damaged ({_line(error)})"
            else:
                return checkpoint, [f"{damage}; moved to {self._bury(step)}" for step, damage in damaged.items()]
        if damaged:
            raise UserError(f"{self._folder}: {'; '.join(damaged.values())}; to begin anew, name another --out")
        return None, []

    def read(self, step: int, template: State) -> Checkpoint:
        """The checkpoint of a step; what is not as it was saved raises."""
        saved = self._manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore())).note
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(template), labels=ocp.args.StandardRestore()),
        )
        labels = np.asarray(restored.labels["labels"])
        if saved["digests"] != digests_of(restored.state, labels, saved["note"]):
            raise ValueError("what it holds is not what was saved")
        return Checkpoint(restored.state, labels, Position(**saved["note"]["position"]), saved["note"])

    def _bury(self, step: int) -> Path:
        place = self._folder.parent / "damaged" / str(step)

        def move() -> None:
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            (self._folder / str(step)).rename(place)

        on_main(move)
        self._manager.reload()
        return place

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """What goes wrong while writing, as a user can mend it: mostly a disk that is full, or a host that is gone."""
        try:
            yield
        except Exception as error:
            free = shutil.disk_usage(self._folder).free / 1e9
            remedy = "Make room" if is_single_process() else "See what other processes say"
            last = "no checkpoint is whole yet" if self.newest is None else f"that of step {self.newest:,} is whole"
            raise UserError(
                f"{self._folder}: cannot write a checkpoint ({_line(error)}; {free:.1f} GB free); {last}. "
                f"{remedy} and repeat the command to go on from there"
            ) from error


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@dataclass
class _WholeEpochs(checkpoint_managers.PreservationPolicy):
    """Keeps what was saved at the end of every so many epochs."""

    folder: Path
    every: int

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: checkpoint_managers.PreservationContext
    ) -> Sequence[bool]:
        epochs = [self._epochs(checkpoint) for checkpoint in checkpoints]
        return [bool(self.every and epoch and epoch % self.every == 0) for epoch in epochs]

    def _epochs(self, checkpoint: Any) -> int:
        """Epochs at whose end it was saved, else 0: its note says so, also to a process that comes later."""
        try:
            saved = read_json(self.folder / str(checkpoint.step) / "note" / "metadata", "")
            position = saved["note"]["position"]
            return position["epoch"] if position["batch"] == 0 else 0
        except (UserError, KeyError, TypeError):  # damaged
            return 0


# One program for each shape: one for all of a state's arrays takes minutes to compile.
@jax.jit
def _sum_of_bits(leaf: jax.Array) -> jax.Array:
    """An array's bits summed as whole numbers, which any flipped bit changes and no sharding does."""
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32).sum(dtype=jnp.uint32)


@jax.jit
def _all_finite(leaf: jax.Array) -> jax.Array:
    return jnp.isfinite(leaf).all()


def is_finite(state: State) -> bool:
    """Whether all numbers of a state are."""
    return all(jax.device_get([_all_finite(leaf) for leaf in jax.tree.leaves(state)]))


def digests_of(state: State, labels: np.ndarray, note: dict[str, Any]) -> dict[str, int]:
    """A number for each array of a state, by its path, for the labels, and for the note."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    sums = jax.device_get([_sum_of_bits(leaf) for _, leaf in leaves])
    arrays = {jax.tree_util.keystr(path): int(value) for (path, _), value in zip(leaves, sums, strict=True)}
    return arrays | {"labels": crc32(labels.tobytes()), "note": crc32(json.dumps(note, sort_keys=True).encode())}
