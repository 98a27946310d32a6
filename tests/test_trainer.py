"""The trainer: nothing unasked from the host, nothing saved that is not finite, weights before the last checkpoint."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bucket import fill
from cion_jax.errors import UserError
from cion_jax.run import trainer
from cion_jax.run.checkpoints import Checkpoints
from cion_jax.run.journal import Journal
from cion_jax.run.pretraining import pretrain
from processes import steps
from shared_step import shared_step
from tiny import SETTINGS
from tiny_pretrain import ONE_STAGE, cion, saved, template

pytestmark = [pytest.mark.xdist_group("trainer"), pytest.mark.usefixtures("tiny")]


@pytest.mark.slow
def test_a_step_takes_nothing_from_the_host_unasked(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, guard = Journal.record, "jax_transfer_guard_host_to_device"

    def recording(*arguments: Any) -> None:
        record(*arguments)
        jax.config.update(guard, "disallow")

    monkeypatch.setattr(Journal, "record", recording)
    try:
        assert pretrain(replace(ONE_STAGE, epochs=1), dataset, tmp_path / "run")
    finally:
        jax.config.update(guard, None)


def test_a_loss_that_is_no_number_stops_the_run(dataset: Path, tmp_path: Path) -> None:
    rates = replace(SETTINGS.optimization, learning_rate=1e30)
    lost = replace(ONE_STAGE, optimization=rates, checkpoint_steps=1, keep=9)
    with pytest.raises(UserError) as message:
        pretrain(lost, dataset, tmp_path / "run")
    number, good = steps(tmp_path / "run")[-1]["step"], saved(tmp_path / "run")[-1]
    assert re.search(
        rf": step {number}: .*loss is nan.* of step {good}\. The step before: .*loss \d", str(message.value)
    )
    for step in saved(tmp_path / "run"):
        with Checkpoints(tmp_path / "run", 9, 0) as checkpoints:
            result = checkpoints.read(step, template())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state)), step


def test_a_state_that_is_not_finite_is_not_saved(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*program: Any) -> Any:
        def step(*arguments: Any) -> Any:
            state, metrics = shared_step(*program)(*arguments)
            return state._replace(center=state.center.at[0].set(np.inf)) if state.step == 10 else state, metrics

        return step

    monkeypatch.setattr(trainer, "jit_step", lost)
    with pytest.raises(UserError, match=r"step 10: parameters or statistics .* of step 5\. The step before: .*loss"):
        pretrain(ONE_STAGE, dataset, tmp_path / "run")
    assert saved(tmp_path / "run") == [5]


@pytest.mark.parametrize(
    "options",
    [["--level", "tracklet"], ["--level", "tracklet", "--shuffle-window", "3"], ["--relabel", "1", "--sigma", "2"]],
    ids=["one by one", "in chunks", "new labels"],
)
def test_a_store_trains_as_a_folder_does(
    options: list[str], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(dataset, "gs://bucket/blocks")
    one = ["--instances", "2", "--stages", "0", "--epochs", "2", *options]
    assert cion(tmp_path / "folder", dataset, *one) == 0
    assert cion(tmp_path / "store", "gs://bucket/blocks", *one) == 0
    assert steps(tmp_path / "folder") == steps(tmp_path / "store")
    assert json.loads((tmp_path / "store" / "origin.json").read_text())["data"] == "gs://bucket/blocks"


def test_no_run_ends_without_its_weights(
    dataset: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended while it writes the last weights, a run writes them when it is repeated."""

    def dying(path: Path, weights: Any) -> None:
        raise MemoryError

    out = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(out / "checkpoints" / "24")
    (out / "teacher.safetensors").unlink()
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(trainer, "save", dying)
        cion(out, dataset)
    assert cion(out, dataset) == 0
    assert (out / "teacher.safetensors").read_bytes() == (finished / "teacher.safetensors").read_bytes()
