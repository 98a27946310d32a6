"""A run that is killed again and again ends as one that is left in peace; nor do its devices matter."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest

from processes import steps
from tiny_pretrain import Process, Result, cion, newest, saved
from tiny_run import out_of_bits

pytestmark = [pytest.mark.xdist_group("kills"), pytest.mark.usefixtures("tiny")]


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
    results += [kill(at=time) for time in (2.05, 3.15)]
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
    assert [result.returncode for result in chain.results] == [-9] * 4 + [143, 143, 0, 0]
    assert chain.half_written and not any("tmp" in path.name for path in (chain.killed / "checkpoints").iterdir())


@pytest.mark.slow
def test_signals_are_answered(chain: Chain) -> None:
    for result in chain.results[4:6]:
        assert result.stderr.count("cion: stopping after this step, with a checkpoint") == 1
        assert result.stdout.endswith("stopped with a checkpoint; repeat the command to go on\n")
    assert chain.results[6].stdout.startswith(str(chain.killed / "teacher.safetensors"))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_passed_over(chain: Chain) -> None:
    message = chain.results[5].stderr
    assert f"the checkpoint of step {chain.damaged} is damaged" in message and "goes on after step" in message
    assert (chain.killed / "damaged" / str(chain.damaged)).is_dir()


@pytest.mark.slow
def test_a_finished_run_says_so(chain: Chain) -> None:
    total = len(steps(chain.whole))
    assert f"was finished with step {total} of {total}" in chain.results[7].stderr


@pytest.mark.slow
def test_whole_epochs_outlive_restarts(chain: Chain) -> None:
    ends = [row["step"] + 1 for row in steps(chain.whole) if row["epoch"] in (2, 4)]
    for out in (chain.whole, chain.killed):
        assert set(ends) < set(saved(out)) and len(saved(out)) == 3


def test_labels_that_depend_on_the_teacher_do() -> None:
    labels, teacher = np.arange(40), np.ones(5, np.float32)
    other = np.nextafter(teacher, 2 * (np.arange(5) == 3))
    assert (out_of_bits({"a": teacher}, labels) != out_of_bits({"a": other}, labels)).any()


#: Runs by the devices that they are made on, with their options.
ON_DEVICES: dict[str, tuple[int, list[str]]] = {
    "1": (1, []),
    "8": (8, []),
    "4 x 2": (8, ["--model-axis", "2"]),
    "2 then 1": (1, []),
}
Losses = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def losses(process: Process, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Of one of these runs; with a rate at which the network learns something."""
    folder = tmp_path_factory.mktemp("devices")
    tiny = ["--instances", "2", "--stages", "0", "--epochs", "2", "--learning-rate", "0.005"]

    @cache
    def losses(name: str) -> np.ndarray:
        devices, options = ON_DEVICES[name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XLA_FLAGS", "")  # as users have it: what compiles fast rounds ten times as much
            if name == "2 then 1":
                assert process(folder / name, *tiny, devices=2, at=0.6, signal="SIGTERM").returncode == 143
            result = process(folder / name, *tiny, *options, devices=devices)
        assert result.returncode == 0, result.stderr
        return np.array([row["loss"] for row in steps(folder / name)])

    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    "devices", [*(pytest.param(name, marks=pytest.mark.whole) for name in ("8", "4 x 2")), "2 then 1"]
)
def test_losses_do_not_depend_on_the_devices(losses: Losses, devices: str) -> None:
    one = losses("1")
    assert len(one) == 24 and np.ptp(one) > 1
    np.testing.assert_allclose(losses(devices), one, rtol=1e-5)


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
