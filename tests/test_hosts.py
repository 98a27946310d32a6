"""Many processes end with the numbers of one, though some of them are killed on the way."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import shared_work
from cion_jax.config import Hosts, Writing
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.feature_store import read_features
from cion_jax.hosts import join_job
from processes import HANGS, ended, free_address, start, steps
from sources import Blocks

pytestmark = [pytest.mark.xdist_group("hosts"), pytest.mark.slow]

HERE = Path(__file__).parent
OPTIONS = "--epochs 3 --instances 2 --stages 0 --accumulate 2 --relabel 1 2 --evaluate-every 2".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "blocks"
    splits = {"train": Blocks(200), "query": Blocks(20, seed=1), "gallery": Blocks(60, seed=2)}
    write_dataset(folder, splits, Writing(images_per_shard=40, workers=1))
    return folder


Launch = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture(scope="module")
def launch(data: Path, cache: Path) -> Launch:
    """Starts all processes of a run; one process has as many devices."""

    def launch(out: Path, processes: int, devices: int = 1) -> list[subprocess.Popen[str]]:
        run = str(HERE / "support" / "tiny_run.py")
        folders = ["--data", str(data), "--evaluate", str(data), "--out", str(out)]
        command = [run, json.dumps({}), "pretrain", run, *folders, *OPTIONS]
        if processes == 1:
            return [start(command, cache, devices)]
        among = ["--coordinator", free_address(), "--processes", str(processes), "--process"]
        return [start([*command, *among, str(number)], cache, devices) for number in range(processes)]

    return launch


def wait_for(out: Path, steps: int) -> None:
    """Until so many steps are in the journal."""
    deadline = time.monotonic() + HANGS
    journal = out / "metrics.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < steps:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_same(one: Path, other: Path, tolerance: float = 0) -> None:
    rows = steps(one)
    others = steps(other)
    assert len(rows) == len(others) > 40
    for row, same in zip(rows, others, strict=True):
        assert row.keys() == same.keys()
        np.testing.assert_allclose(list(row.values()), [same[name] for name in row], rtol=tolerance)
    for epoch in (1, 2):
        path = f"labels/epoch-{epoch:05}.npz"
        np.testing.assert_array_equal(np.load(one / path)["labels"], np.load(other / path)["labels"])
    weights, same = (load_file(out / "teacher.safetensors") for out in (one, other))
    assert weights.keys() == same.keys()
    for name in weights:
        np.testing.assert_allclose(weights[name], same[name], atol=tolerance)


@pytest.mark.parametrize(("count", "tolerance"), [(2, 0), pytest.param(4, 1e-4, marks=pytest.mark.whole)])
def test_processes_that_are_killed_end_with_the_numbers_of_one(
    launch: Launch, tmp_path: Path, count: int, tolerance: float
) -> None:
    """Two of them with its very bits; four, which nobody kills here, sum in another order."""
    one, many = tmp_path / "one", tmp_path / "many"
    assert ended(launch(one, 1, devices=count))[0][0] == 0

    if count == 2:
        group = launch(many, count)
        wait_for(many, 8)
        group[1].kill()
        code, output = ended(group)[0]
        assert code == 1 and "Traceback" not in output
        assert "process 0 of 2: process 1 (" in output and "has ended without a word" in output

        group = launch(many, count)
        wait_for(many, 20)
        group[1].send_signal(signal.SIGTERM)  # the others stop after the same step
        done = ended(group)
        assert [code for code, _ in done] == [143] * count
        assert "goes on after" in done[0][1] and "stopped with a checkpoint" in done[0][1]

    assert [code for code, _ in ended(launch(many, count))] == [0] * count
    assert_same(one, many, tolerance)


@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_work_make_the_whole(count: int, cache: Path, tmp_path: Path) -> None:
    address = free_address()
    script = str(HERE / "support" / "shared_work.py")
    among = [[address, str(count), str(number), str(tmp_path)] for number in range(count)]
    done = ended([start([script, *arguments], cache, devices=2) for arguments in among])
    assert [code for code, _ in done] == [0] * count, done
    alone = shared_work.results()
    shared_work.embedded(tmp_path / "alone")
    features, same = (read_features(tmp_path / name, "all") for name in ("features", "alone"))
    np.testing.assert_allclose(features[0], same[0], atol=1e-6)
    np.testing.assert_array_equal(features[1], same[1])
    seen = [np.load(tmp_path / f"{number}.npz")["seen"] for number in range(count)]
    assert min(map(len, seen)) >= 32 and sorted(np.concatenate(seen)) == list(range(100))
    for number in range(count):
        arrays = np.load(tmp_path / f"{number}.npz")
        for name, values in alone.items():
            np.testing.assert_array_equal(arrays[name], values)
        parts = [np.arange(host * 3).reshape(-1, 3) + (1 << 40) for host in range(count)]
        np.testing.assert_array_equal(arrays["gathered"], np.concatenate(parts))
        np.testing.assert_array_equal(arrays["shares"], np.arange(11))
        assert arrays["empty"].shape == (0, 2)
        assert str(arrays["heard"]) == ("division by zero" if number == 0 else "process 0 cannot go on; it says why")


def test_half_an_address_is_none() -> None:
    with pytest.raises(UserError, match="belong together"), join_job(Hosts(coordinator="here:1")):
        pass


def test_nobody_is_waited_for_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    with join_job(Hosts()):
        pass


@pytest.mark.parametrize(
    "variables", [{"SLURM_STEP_NUM_TASKS": "2"}, {"OMPI_COMM_WORLD_SIZE": "8"}, {"TPU_WORKER_HOSTNAMES": "a,b"}]
)
def test_launchers_are_heard(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process alone on the same folder would be the worst of mistakes."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="cannot join the others"), join_job(Hosts()):
        pass


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (Hosts("here:1", 2, 2), "--process 2 of --processes 2: number them from 0 to 1"),
        (Hosts("here", 2, 1), "--coordinator here: give HOST:PORT"),
        (Hosts("here:port", 2, 1), "--coordinator here:port: give HOST:PORT"),
        (Hosts("here:1", 2, 1, join_timeout=0), "--join-timeout 0"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(hosts: Hosts, text: str) -> None:
    with pytest.raises(UserError, match=text), join_job(hosts):
        pass


def test_software_is_compared_before_jax_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = MagicMock(side_effect=UserError("they differ"))
    monkeypatch.setattr("cion_jax.hosts.call_roll", asked)
    with pytest.raises(UserError, match="they differ"), join_job(Hosts("here:1", 2, 1), lambda: {"batch": "16"}):
        pass
    (_, facts, seconds, _), _ = asked.call_args
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert facts.items() >= {"batch": "16", "jax": jax.__version__, "python": python}.items()
    assert {"cion-jax", "jaxlib"} <= facts.keys() and seconds == 300


def test_mistakes_end_a_run_before_it_begins(data: Path, cache: Path, tmp_path: Path) -> None:
    """Nobody waits for others with a mistake of one's own, and no two go on with different data or settings."""
    other = tmp_path / "other"
    write_dataset(other, {"train": Blocks(200, seed=9)}, Writing(workers=1))
    run = str(HERE / "support" / "tiny_run.py")

    def process(number: int, address: str, folder: Path, *options: str) -> subprocess.Popen[str]:
        among = ["--coordinator", address, "--processes", "2", "--process", str(number)]
        paths = ["--data", str(folder), "--out", str(tmp_path / "run")]
        return start([run, "{}", "pretrain", run, *paths, *among, *options], cache)

    address = free_address()
    mistaken = process(0, free_address(), tmp_path / "nowhere")
    two = [process(0, address, data), process(1, address, other, "--seed", "7")]
    (code, said), *both = ended([mistaken, *two])
    assert code == 1 and said.count("\n") == 1 and "nowhere: no finished dataset here" in said
    for code, said in both:
        *_, line = said.splitlines()
        assert code == 1 and line.startswith("cion: process 1 ("), said
        assert "seed is 7, not 0; the data's fingerprint is " in line
    assert not (tmp_path / "run").exists()
