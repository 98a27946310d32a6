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

from cion_jax.pretrain.step import StepConfig
from cion_jax.recipes import recipe
from cion_jax.run.checkpoints import Checkpoint, Checkpoints, Position
from cion_jax.run.pretraining import model_of
from cion_jax.run.sharding import make_mesh
from experiments.benchmarks.command import command
from experiments.benchmarks.step import inputs, jitted_step
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
    config = StepConfig(row, model_of(row), batch, make_mesh(jax.device_count(), row.model_axis))
    state, images, values = inputs(config)
    step = jitted_step(config, state)
    image_labels = np.arange(labels)
    state_size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9
    blocked, written, beside, away = [], [], [], []

    def one_step() -> float:
        nonlocal state
        began = time.perf_counter()
        state, metrics = step(state, images, values)
        jax.block_until_ready(metrics)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), 1, 0) as checkpoints:
        for number in range(rounds + 1):  # the first compiles, and is not counted
            alone = [one_step() for _ in range(5)]
            began = time.perf_counter()
            checkpoints.save(Checkpoint(state, image_labels, Position(0, number), {}))
            blocked_now = time.perf_counter() - began
            path = Path(folder) / "checkpoints" / str(int(state.step))
            while_writing = [one_step()]
            while not path.exists():
                while_writing.append(one_step())
            if number:
                blocked.append(blocked_now)
                written.append(time.perf_counter() - began)
                beside.append(median(while_writing))
                away.append(median(alone))
    # Lost is the time that training stands still, and of the time of writing the share by which steps are slower.
    lost = median(
        still + whole * (1 - fast / slow)
        for still, whole, fast, slow in zip(blocked, written, away, beside, strict=True)
    )
    every = row.checkpoint_steps
    print(f"{environment('jax', 'orbax-checkpoint')}, {jax.device_count()} x {jax.devices()[0].device_kind}")
    print(f"{name}: a state of {state_size:.2f} GB, {labels:,} labels\n")
    print("| | |\n|---|---|")
    print(f"| a step with nothing beside it | {1e3 * median(away):,.0f} ms |")
    print(f"| a step while a checkpoint is written | {1e3 * median(beside):,.0f} ms |")
    print(f"| the training stands still for | {median(blocked):.2f} s |")
    print(f"| the checkpoint is whole after | {median(written):.2f} s |")
    print(f"| lost in all, of {every:,} steps from one checkpoint to the next | {lost / every / median(away):.2%} |")


if __name__ == "__main__":
    command(main)
