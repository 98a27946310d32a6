"""Training survives kills, signals, other devices, damaged checkpoints; what cannot work is refused in one line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bucket import fill
from cion_jax.cli import main
from cion_jax.config import Pretraining, Writing
from cion_jax.data.labels import read_labelling, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.state import TrainState, fresh, mesh_of, placement, shapes
from cion_jax.pretrain.step import StepConfig, gradients, train_step
from cion_jax.run import trainer as loop
from cion_jax.run.checkpoints import Checkpoint, Checkpoints
from cion_jax.run.journal import Journal
from cion_jax.run.plan import check, model_of, relabel_epochs
from cion_jax.run.relabel import relabelled
from processes import steps, surroundings
from sources import Blocks
from tiny import FAMILY, SETTINGS
from tiny_run import by_bits, out_of_bits

pytestmark = pytest.mark.xdist_group("loop")

RUN = Path(__file__).parent / "support" / "tiny_run.py"
ONE_STAGE = replace(SETTINGS, epochs=2, instances=(2,), stages=(0,))

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Process:
    """Runs `cion pretrain` with the tiny settings in a process of its own; all of them share what they compile."""

    data: Path
    cache: Path

    def __call__(self, out: Path, *options: str, devices: int = 1, **plan: Any) -> Result:
        command = ["pretrain", str(RUN), "--data", str(self.data), "--out", str(out), *options]
        return subprocess.run(
            [sys.executable, "-W", "error", str(RUN), json.dumps(plan), *command],
            env=surroundings(self.cache, devices),
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def process(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Process:
    return Process(dataset, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny backbone in the zoo, and one compiled step for all runs in this process whose programs are equal."""
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    monkeypatch.setattr(loop, "train_step", once)


def once(config: StepConfig, shapes: TrainState, compiled: dict[Any, Any] = {}) -> Any:  # noqa: B006
    free: Any = {
        "batch": 0,
        "epochs": 0,
        "epoch_steps": 0,
        "checkpoint_steps": 0,
        "keep": 0,
        "labels": None,
        "level": "identity",
        "relabel": (),
    }
    rates = replace(config.settings.optimization, learning_rate=0)
    key = replace(config.settings, optimization=rates, **free), config.instances
    if key not in compiled:
        compiled[key] = train_step(config, shapes)
    return compiled[key]


def template() -> TrainState:
    model = model_of(SETTINGS)
    wanted = shapes(model, SETTINGS.head, SETTINGS.optimization)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        wanted,
        placement(mesh_of(1, 1), wanted),
    )


def newest(out: Path) -> Checkpoint:
    with Checkpoints(out, 9, 0) as checkpoints:
        found, complaints = checkpoints.restore(template())
    assert found is not None and not complaints
    return found


def saved(out: Path) -> list[int]:
    return sorted(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())


# A run that is killed again and again, and one that is left in peace.


@dataclass(frozen=True)
class Chain:
    whole: Path
    killed: Path
    results: list[Result]
    half_written: list[str]
    damaged: int


@pytest.fixture(scope="module")
def chain(process: Process, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """K grows at epoch 2, labels are made anew at 1 and 3."""
    folder = tmp_path_factory.mktemp("chain")
    whole, out = folder / "whole", folder / "killed"
    process = partial(process, bits=True)
    anew = "--relabel", "1", "3"
    assert process(whole, *anew).returncode == 0
    kill = partial(process, out, *anew, signal="SIGKILL")
    results = [kill(at=0.35), kill(at=1.3, writing=True)]
    half_written = [path.name for path in (out / "checkpoints").iterdir() if "tmp" in path.name]
    results += [kill(at=time) for time in (1.7, 2.05, 2.9, 3.15)]
    results.append(process(out, *anew, at=3.4, signal="SIGTERM"))
    damaged = saved(out)[-1]
    flip_in_largest(out / "checkpoints" / str(damaged))
    results.append(process(out, *anew, at=3.7, signal="SIGINT"))
    results += [process(out, *anew), process(out, *anew)]
    return Chain(whole, out, results, half_written, damaged)


def flip_in_largest(folder: Path) -> None:
    files = [path for path in folder.rglob("*/d/*") if path.is_file()]
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(chain: Chain) -> None:
    whole, killed = newest(chain.whole), newest(chain.killed)
    jax.tree.map(np.testing.assert_array_equal, killed, whole)
    weights = [folder / "teacher.safetensors" for folder in (chain.whole, chain.killed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_a_killed_run_has_each_step_once(chain: Chain) -> None:
    rows = steps(chain.killed)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert rows == steps(chain.whole)
    assert {row["instances"] for row in rows} == {2, 4} and rows[-1]["epoch"] == 4


@pytest.mark.slow
def test_the_run_was_killed_as_planned(chain: Chain) -> None:
    assert [result.returncode for result in chain.results] == [-9] * 6 + [143, 143, 0, 0]
    assert chain.half_written and not any("tmp" in path.name for path in (chain.killed / "checkpoints").iterdir())


@pytest.mark.slow
def test_signals_are_answered(chain: Chain) -> None:
    for result in chain.results[6:8]:
        assert result.stderr.count("cion: stopping after this step, with a checkpoint") == 1
        assert result.stdout.endswith("stopped with a checkpoint; repeat the command to go on\n")
    assert chain.results[8].stdout.startswith(str(chain.killed / "teacher.safetensors"))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_passed_over(chain: Chain) -> None:
    told = chain.results[7].stderr
    assert f"the checkpoint of step {chain.damaged} is damaged" in told and "goes on after step" in told
    assert (chain.killed / "damaged" / str(chain.damaged)).is_dir()


@pytest.mark.slow
def test_a_finished_run_says_so(chain: Chain) -> None:
    total = len(steps(chain.whole))
    assert f"was finished with step {total} of {total}" in chain.results[9].stderr


@pytest.mark.slow
def test_whole_epochs_outlive_restarts(chain: Chain) -> None:
    ends = [row["step"] + 1 for row in steps(chain.whole) if row["epoch"] in (2, 4)]
    for out in (chain.whole, chain.killed):
        assert set(ends) < set(saved(out)) and len(saved(out)) == 3


def test_labels_that_depend_on_the_teacher_do() -> None:
    labels, teacher = np.arange(40), np.ones(5, np.float32)
    other = np.nextafter(teacher, 2 * (np.arange(5) == 3))
    assert (out_of_bits({"a": teacher}, labels) != out_of_bits({"a": other}, labels)).any()


# Other devices.


@pytest.fixture(scope="module")
def losses(process: Process, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Of one run by the devices that it was made on; with a rate at which the network learns something."""
    folder, found = tmp_path_factory.mktemp("devices"), {}
    tiny = ["--instances", "2", "--stages", "0", "--epochs", "2", "--learning-rate", "0.005"]
    assert process(folder / "2", *tiny, devices=2, at=0.6, signal="SIGTERM").returncode == 143
    for name in ("2 then 8", "2 then 1"):
        shutil.copytree(folder / "2", folder / name)
    runs: dict[str, tuple[int, list[str]]] = {
        "1": (1, []),
        "2": (2, []),
        "8": (8, []),
        "4 x 2": (8, ["--model-axis", "2"]),
        "2 then 8": (8, []),
        "2 then 1": (1, []),
    }
    for name, (devices, options) in runs.items():
        result = process(folder / name, *tiny, *options, devices=devices)
        assert result.returncode == 0, result.stderr
        found[name] = np.array([row["loss"] for row in steps(folder / name)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["2", "8", "4 x 2", "2 then 8", "2 then 1"])
def test_losses_do_not_depend_on_the_devices(losses: dict[str, np.ndarray], devices: str) -> None:
    assert len(losses["1"]) == 24 and np.ptp(losses["1"]) > 1
    np.testing.assert_allclose(losses[devices], losses["1"], rtol=1e-5)


# Within this process.


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
        assert loop.pretrain(replace(ONE_STAGE, epochs=1), dataset, tmp_path / "run")
    finally:
        jax.config.update(guard, None)


def test_a_loss_that_is_no_number_stops_the_run(dataset: Path, tmp_path: Path) -> None:
    rates = replace(SETTINGS.optimization, learning_rate=1e30)
    lost = replace(ONE_STAGE, optimization=rates, checkpoint_steps=1, keep=9)
    with pytest.raises(UserError) as told:
        loop.pretrain(lost, dataset, tmp_path / "run")
    number, good = steps(tmp_path / "run")[-1]["step"], saved(tmp_path / "run")[-1]
    assert re.search(rf": step {number}: .*loss is nan.* of step {good}\. The step before: .*loss \d", str(told.value))
    for step in saved(tmp_path / "run"):
        with Checkpoints(tmp_path / "run", 9, 0) as checkpoints:
            found = checkpoints._read(step, template())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.state)), step


def test_a_state_that_is_not_finite_is_not_saved(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(config: StepConfig, shapes: TrainState) -> Any:
        def step(*arguments: Any) -> Any:
            state, metrics = once(config, shapes)(*arguments)
            return state._replace(center=state.center * np.inf) if state.step == 10 else state, metrics

        return step

    monkeypatch.setattr(loop, "train_step", lost)
    with pytest.raises(UserError, match=r"step 10: parameters or statistics .* of step 5\. The step before: .*loss"):
        loop.pretrain(ONE_STAGE, dataset, tmp_path / "run")
    assert saved(tmp_path / "run") == [5]


def cion(out: Path, data: Path | str, *options: str) -> int:
    one = ("--instances", "2", "--stages", "0", "--epochs", "2")
    return main(["pretrain", str(RUN), "--data", str(data), "--out", str(out), *(options or one)])


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "tiny", FAMILY)
        patch.setattr(loop, "train_step", once)
        assert cion(out, dataset) == 0
    return out


@pytest.mark.parametrize(
    "options",
    [["--level", "tracklet"], ["--level", "tracklet", "--stream", "3"], ["--relabel", "1", "--sigma", "2"]],
    ids=["one by one", "stream", "new labels"],
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


@pytest.mark.slow
def test_a_full_disk_ends_with_a_line_and_can_be_mended(
    process: Process, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    result = process(out, "--instances", "2", "--stages", "0", "--epochs", "2", at=0.5, full=True)
    # TensorStore's threads may write to stderr at the same time, and into the same line.
    (line,) = re.findall("cion: .*", result.stderr) or [result.stderr]
    assert result.returncode == 1
    assert "cannot write a checkpoint" in line and "that of step 5 is whole" in line and "Make room" in line
    assert cion(out, process.data) == 0
    assert "goes on after step 5 of 24" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, newest(out), newest(finished))


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
        patch.setattr(loop, "save", dying)
        cion(out, dataset)
    assert cion(out, dataset) == 0
    assert (out / "teacher.safetensors").read_bytes() == (finished / "teacher.safetensors").read_bytes()


# Labels made anew.


def test_labels_made_anew_are_kept_and_made_again_after_a_death(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--relabel", "1", "2", "3", "--sigma", "0.1", "--tau", "0.02", "--min-images", "2"]
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    assert cion(whole, dataset, *options) == 0
    paths = sorted((whole / "labels").iterdir())
    assert len(paths) == 3
    for epoch, path in enumerate(paths, 1):
        labels = read_labelling(path, Records(dataset).card.fingerprint)
        with np.load(path) as arrays:
            told = json.loads(str(arrays["settings"]))
            assert len(arrays["noise"]) == 4  # of raw tracklets, and of three levels
        assert (told["epoch"], told["levels"], told["sigma"]) == (epoch, 3, 0.1)
        assert (labels == -1).any() and np.bincount(labels[labels >= 0]).min() >= 2
    np.testing.assert_array_equal(newest(whole).labels, labels)

    def dying(settings: Pretraining, *rest: Any) -> np.ndarray:
        relabelled(settings, *rest)
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(loop, "relabelled", dying)
        cion(ended, dataset, *options)
    assert cion(ended, dataset, *options) == 0
    jax.tree.map(np.testing.assert_array_equal, newest(ended), newest(whole))
    told = capsys.readouterr().err
    assert told.count("embedding images for new labels") == 7 == told.count("denoising for new labels")


def test_a_damaged_record_is_nobodys(own_dataset: Path, tmp_path: Path) -> None:
    damage(own_dataset, 7)
    options = ["--epochs", "2", "--relabel", "1", "--sigma", "2", "--tau", "0.02"]
    assert cion(tmp_path / "run", own_dataset, *options, "--skip-damaged") == 0
    labels = np.load(tmp_path / "run" / "labels" / "epoch-00001.npz")["labels"]
    assert np.flatnonzero(labels < 0).tolist() == [7]


def damage(folder: Path, number: int) -> None:
    records = Records(folder)
    row = records.index[number]
    with records.shard_path(row["shard"]).open("rb+") as file:
        file.seek(int(row["offset"]) + int(row["length"]) // 2)
        file.write(b"damage")


def test_labels_that_leave_nobody_end_the_run(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cion(tmp_path / "run", dataset, "--relabel", "1", "--min-images", "999") == 1
    assert "epoch 1: denoising left nobody of 200 images; raise sigma" in capsys.readouterr().err


def test_raw_tracklets_reach_the_identity_level_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command without and with --relabel auto is one run, and with epochs by number another."""
    monkeypatch.setattr(loop, "relabelled", by_bits)
    out, data, two = tmp_path / "run", nobody(tmp_path), ["--epochs", "2"]
    assert cion(out, data, *two) == 0
    assert json.loads((out / "settings.json").read_text())["relabel"] == "auto"
    assert (newest(out).labels != np.asarray(Records(data).index["tracklet"])).any()
    assert cion(out, data, *two, "--relabel", "auto") == 0
    assert "was finished" in capsys.readouterr().err
    assert cion(out, data, *two, "--relabel", "1") == 1
    assert "relabel was auto, not [1]" in capsys.readouterr().err


def test_auto_makes_labels_only_where_nothing_says_who_is_who(dataset: Path, tmp_path: Path) -> None:
    strangers, acquainted = Records(nobody(tmp_path)), Records(dataset)
    for epochs, expected in {100: (30, 48, 65), 10: (3, 5, 6), 3: (1, 2), 2: (1,), 1: ()}.items():
        assert relabel_epochs(replace(SETTINGS, epochs=epochs), strangers) == expected
    assert relabel_epochs(SETTINGS, acquainted) == ()
    assert relabel_epochs(replace(SETTINGS, labels=Path("labels.npz")), strangers) == ()
    assert relabel_epochs(replace(SETTINGS, level="tracklet"), strangers) == ()
    assert relabel_epochs(replace(SETTINGS, relabel=()), strangers) == ()
    assert relabel_epochs(replace(SETTINGS, relabel=(2,)), acquainted) == (2,)


# Epochs of so many steps.


def test_a_run_of_counted_steps_goes_on_to_the_same_bits(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within an epoch, before and after labels are made anew, and where K grows."""
    monkeypatch.setattr(loop, "relabelled", by_bits)
    settings = replace(SETTINGS, epoch_steps=7, relabel=(1, 3))
    assert loop.pretrain(settings, dataset, tmp_path / "whole")
    stops = [3, 7, 9, 14, 19, 21, 26]
    monkeypatch.setattr(loop, "asked_to_stop", lambda: nullcontext(stops.__contains__))
    begun = [loop.pretrain(settings, dataset, tmp_path / "stopped") for _ in range(len(stops) + 1)]
    assert begun == [False] * len(stops) + [True]
    jax.tree.map(np.testing.assert_array_equal, newest(tmp_path / "stopped"), newest(tmp_path / "whole"))
    rows = steps(tmp_path / "whole")
    assert steps(tmp_path / "stopped") == rows
    np.testing.assert_allclose([row["epoch"] for row in rows], np.arange(1, 29) / 7)


@pytest.mark.parametrize("level", ["instance", "tracklet", "identity"])
def test_all_levels_take_the_same_steps(
    level: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are known at the start, though at the identity level labels are made on the way."""

    def idle(state: TrainState, *arguments: Any) -> tuple[TrainState, dict[str, float]]:
        return state._replace(step=state.step + 1), {"loss": 1.0}

    monkeypatch.setattr(loop, "train_step", lambda *_: idle)
    monkeypatch.setattr(loop, "relabelled", by_bits)
    assert loop.pretrain(replace(ONE_STAGE, level=level, epoch_steps=4), nobody(tmp_path), tmp_path / "run")
    assert "begins with step 0 of 8" in capsys.readouterr().err
    assert len(steps(tmp_path / "run")) == 8


# What cannot work.


def test_other_settings_and_other_data_are_refused(
    dataset: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    write_dataset(other, {"train": Blocks(200, seed=5)}, Writing(workers=1))
    before = saved(finished)
    for refused, text in (
        (partial(cion, finished, other), f"{other}: not the data that this run was begun with"),
        (partial(cion, finished, dataset, "--seed", "3"), "begun with other settings"),
        (partial(cion, other, dataset), f"{other}: holds something else than a run; name another folder"),
    ):
        assert refused() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("cion: ") and text in line
    assert saved(finished) == before


def labelling(data: Path, tmp_path: Path) -> list[str]:
    write_labelling(tmp_path / "labels.npz", np.zeros(200), "another", {})
    return ["--labels", str(tmp_path / "labels.npz")]


def nobody(tmp_path: Path) -> Path:
    """A folder whose records do not know who is who."""

    class Strangers(Blocks):
        @property
        def labels(self) -> np.ndarray:
            rows = super().labels
            rows["identity"] = -1
            return rows

    write_dataset(tmp_path / "nobody", {"train": Strangers(40)}, Writing(workers=1))
    return tmp_path / "nobody"


def strangers(data: Path, tmp_path: Path) -> list[str]:
    return ["--relabel", "--data", str(nobody(tmp_path))]


def strangers_for_an_epoch(data: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(nobody(tmp_path)), "--epochs", "1"]


def streamed_strangers(data: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(nobody(tmp_path)), "--stream", "4"]


def empty(data: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "empty").mkdir()
    return ["--data", str(tmp_path / "empty")]


def scattered(data: Path, tmp_path: Path) -> list[str]:
    class Scattered(Blocks):
        @property
        def labels(self) -> np.ndarray:
            rows = super().labels
            rows["identity"][:9] = np.arange(100, 109)
            rows["identity"][-9:] = np.arange(100, 109)
            return rows

    write_dataset(tmp_path / "scattered", {"train": Scattered(80)}, Writing(workers=1))
    return ["--data", str(tmp_path / "scattered"), "--stream", "4"]


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--batch", "18"], ["a batch of 18 images does not split", "4 instances", "20 would"]),
        (["--batch", "20", "--accumulate", "2"], ["a batch of 20 images", "2 parts", "24 would"]),
        (["--stages", "0"], ["stages (0,)", "instances (2, 4)", "pair up"]),
        (["--stages", "1", "2"], ["stages (1, 2)", "the first at epoch 0"]),
        (["--backbone", "resnet50_ibm"], ["no backbone is called 'resnet50_ibm'", "resnet50_ibn"]),
        (["--backbone", "vit_tiny", "--global-size", "8", "8"], ["vit_tiny cannot take images of 8x8"]),
        (["--backbone", "vit_tiny", "--local-size", "8", "16"], ["vit_tiny cannot take images of 8x16"]),
        (["--model-axis", "2"], ["1 devices", "groups of 2", "divisor"]),
        (labelling, ["labels.npz: made for other data (fingerprint another"]),
        (strangers, ["nobody in split train has an identity", "relabel () make no", "--labels", "--level tracklet"]),
        (strangers_for_an_epoch, ["nobody in split train", "1 epochs with relabel auto make no", "at least 2 epochs"]),
        (empty, ["empty"]),
        (["--level", "tracklet", "--labels", "x.npz"], ["labels are for the identity level, not for tracklet"]),
        (["--level", "tracklet", "--relabel", "1"], ["relabel is for the identity level, not for tracklet"]),
        (["--relabel", "2", "1"], ["relabel (2, 1) must rise", "between epoch 1 and 3"]),
        (["--relabel", "4"], ["relabel (4,) must rise"]),
        (["--relabel", "1", "--sigma", "0"], ["sigma 0.0: distances go from 0 to 2"]),
        (["--stream", "-1"], ["stream is -1; it must be a number of batches"]),
        (["--stream", "4", "--relabel", "1"], ["stream is 4", "new labels at epochs (1,)", "--stream 0"]),
        (streamed_strangers, ["stream is 4", "new labels at epochs (1, 2, 3)", "--stream 0", "--level tracklet"]),
        (["--epoch-steps", "-1"], ["epoch_steps is -1", "0 for a pass over the data"]),
        (scattered, ["scattered: the images of 9 of 14 identities do not stand together", "--order grouped"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ".join(value[-2:]),
)
def test_what_cannot_work_is_refused_in_a_line(
    options: list[str] | Callable[[Path, Path], list[str]],
    texts: list[str],
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = options if isinstance(options, list) else options(dataset, tmp_path)
    capsys.readouterr()
    assert cion(tmp_path / "run", dataset, *found) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cion: ") and all(text in line for text in texts), line


def test_a_batch_must_split_over_the_devices() -> None:
    check(SETTINGS, 4)
    with pytest.raises(UserError, match=r"a batch of 16 images .* 8 devices x 1 parts x 4 instances; 32 would"):
        check(SETTINGS, 8)
    with pytest.raises(UserError, match="32 would"):
        check(replace(SETTINGS, model_axis=2), 8)  # they share prototypes, but images all the same
    check(replace(SETTINGS, model_axis=2), 4)


# Parts of a batch, and memory.


@pytest.fixture(scope="module")
def slopes() -> Callable[..., Any]:
    """Gradients of random crops, in so many parts: from part `first` on, with what was there before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "tiny", FAMILY)
        models = {remat: model_of(replace(SETTINGS, remat=remat)) for remat in (False, True)}
    state = fresh(models[False], SETTINGS.head, SETTINGS.optimization, jax.random.key(3))
    sizes = (2, 8, 2, 32, 16, 3), (2, 8, 1, 16, 8, 3)
    crops = [np.random.default_rng(n).standard_normal(size).astype(np.float32) for n, size in enumerate(sizes)]

    @partial(jax.jit, static_argnames="remat")
    def slope(statistics: Any, parts: Any, start: int, remat: bool) -> Any:
        def views(part: Any, number: Any) -> Any:
            return part, jax.random.fold_in(jax.random.key(7), number + start)

        config = StepConfig(SETTINGS, models[remat], 2, mesh_of(1, 1))
        return gradients(config, state._replace(batch_stats=statistics), parts, views)

    def run(parts: slice, statistics: Any = state.batch_stats, remat: bool = False) -> Any:
        return slope(statistics, [crop[parts] for crop in crops], parts.start, remat)

    return run


def near(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max()), found, expected)


@pytest.mark.slow
def test_parts_of_a_batch_add_up(slopes: Callable[..., Any]) -> None:
    both, statistics, center, metrics = slopes(slice(0, 2))
    first, moved, *ends = slopes(slice(0, 1))
    second, last, *others = slopes(slice(1, 2), moved)
    near(both, jax.tree.map(lambda a, b: (a + b) / 2, first, second))
    near(statistics, last)
    near([center, metrics], jax.tree.map(lambda a, b: (a + b) / 2, ends, others))


@pytest.mark.slow
def test_remat_changes_nothing_but_memory(slopes: Callable[..., Any]) -> None:
    near(slopes(slice(0, 1), remat=True), slopes(slice(0, 1)))
