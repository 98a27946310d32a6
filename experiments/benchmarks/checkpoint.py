"""What does a checkpoint cost the training that goes on beside it?

python -m experiments.benchmarks.checkpoint
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import jax
import numpy as np
from tyro.conf import Positional

from cion_jax.pretrain.state import mesh_of
from cion_jax.pretrain.step import StepConfig, train_step
from cion_jax.recipes import recipe
from cion_jax.run.checkpoints import Checkpoint, Checkpoints, Position
from cion_jax.run.plan import model_of
from experiments.benchmarks.command import command
from experiments.benchmarks.step import inputs
from experiments.benchmarks.timing import environment


def main(name: Positional[str] = "resnet50_ibn", batch: int = 8, rounds: int = 5, labels: int = 4_000_000) -> None:
    """Train on noise, write checkpoints of the whole state, and time steps beside the writing and away from it.

    Args:
        name: A row, or a file of settings; its images and crops are made small, its state is not.
        batch: Images in a step.
        rounds: Checkpoints to write; the printed figures are medians.
        labels: Images of the data set, whose labels are part of a checkpoint.
    """
    row = recipe(name)
    crops = replace(row.crops, global_size=(64, 32), local_crops=0)
    row = replace(row, batch=batch, accumulate=1, image_size=(64, 32), crops=crops, precision="float32")
    config = StepConfig(row, model_of(row), batch, mesh_of(jax.device_count(), row.model_axis))
    state, images, now = inputs(config)
    step = train_step(config, jax.eval_shape(lambda: state))
    who, size = np.arange(labels), sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9
    blocked, written, beside, away = [], [], [], []

    def one_step() -> float:
        nonlocal state
        began = time.perf_counter()
        state, metrics = step(state, images, now)
        jax.block_until_ready(metrics)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), 1, 0) as checkpoints:
        for number in range(rounds + 1):  # the first compiles, and is not counted
            alone = [one_step() for _ in range(5)]
            began = time.perf_counter()
            checkpoints.save(Checkpoint(state, who, Position(0, number), {}))
            stood = time.perf_counter() - began
            with_it = [one_step()]
            while not (Path(folder) / "checkpoints" / str(int(state.step) - len(with_it))).exists():
                with_it.append(one_step())
            if number:
                blocked.append(stood)
                written.append(time.perf_counter() - began)
                beside.append(median(with_it))
                away.append(median(alone))
    lost = median(
        stood + whole * (1 - a / b) for stood, whole, a, b in zip(blocked, written, away, beside, strict=True)
    )
    every = row.checkpoint_steps
    print(f"{environment('jax', 'orbax-checkpoint')}, {jax.device_count()} x {jax.devices()[0].device_kind}")
    print(f"{name}: a state of {size:.2f} GB, {labels:,} labels\n")
    print("| | |\n|---|---|")
    print(f"| a step with nothing beside it | {1e3 * median(away):,.0f} ms |")
    print(f"| a step while a checkpoint is written | {1e3 * median(beside):,.0f} ms |")
    print(f"| the training stands still for | {median(blocked):.2f} s |")
    print(f"| the checkpoint is whole after | {median(written):.2f} s |")
    print(f"| lost in all, of {every:,} steps from one checkpoint to the next | {lost / every / median(away):.2%} |")


if __name__ == "__main__":
    command(main)
