"""Fine-tuning and adaptation on two processes end with the bits of one, though one of the two is killed; eight devices
learn the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuned import COMMANDS, TOY
from processes import HANGS, ended, free_address, start, steps

pytestmark = [pytest.mark.xdist_group("hosts"), pytest.mark.slow]

RUN = str(Path(__file__).parent / "support" / "finetuned_run.py")
#: Three epochs of five steps; a checkpoint also after the sixth.
LENGTH = "--epoch-steps 5 --checkpoint-steps 6".split()  # noqa: SIM905
#: Features have the same bits however many devices train: an adaptation of so small a network makes other clusters of
#: one bit.
MAIN = {"apart": True}
#: Only the main process finds clusters.
OTHER = MAIN | {"without": "sklearn"}


def launch(name: str, data: Path, out: Path, cache: Path, *plans: dict[str, Any]) -> None:
    """Run to the end, with a process for each plan; one process has two devices.

    Once one is killed the others are ended, as launchers do: else they wait for it, for a minute at the most.
    """
    address = free_address()
    among = ["--coordinator", address, "--processes", str(len(plans)), "--process"]
    command = [*COMMANDS[name].split(), *LENGTH, TOY, str(data), str(out)]
    processes = [
        start([RUN, json.dumps(plan), *command, *([*among, str(number)] * (len(plans) > 1))], cache, 3 - len(plans))
        for number, plan in enumerate(plans)
    ]
    is_killed = "killed" in plans[-1]
    if is_killed:
        processes[-1].wait(HANGS)
        for process in processes:
            process.kill()
    done = ended(processes)
    assert all(code == (-9 if is_killed else 0) for code, _ in done[is_killed:]), done


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.whole) for name in ("bnneck", "mgn")), "dbscan"]
)
def test_two_processes_end_with_the_bits_of_one(name: str, dataset: Path, cache: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    launch(name, dataset, one, cache, MAIN)
    launch(name, dataset, two, cache, MAIN, OTHER | {"killed": 6})
    assert 6 <= len(steps(two)) < 15 and not (two / "labels" / "epoch-00002.npz").exists()
    launch(name, dataset, two, cache, MAIN, OTHER)

    rows = steps(one)
    assert len(rows) == 15 and steps(two) == rows
    files = sorted(path.relative_to(one) for path in (*one.glob("*.safetensors"), *one.glob("labels/*.npz")))
    assert len(files) == {"bnneck": 2, "mgn": 1, "dbscan": 4}[name]
    for file in files:
        if file.suffix == ".npz":
            np.testing.assert_array_equal(np.load(one / file)["labels"], np.load(two / file)["labels"])
        else:
            assert (one / file).read_bytes() == (two / file).read_bytes()


@pytest.mark.whole
@pytest.mark.parametrize("name", ["bnneck", "mgn", "dbscan"])
def test_eight_devices_learn_the_same(name: str, dataset: Path, cache: Path, tmp_path: Path) -> None:
    """With the same clusters, that is: in so small a network the last bit of a feature may turn one. The first are made
    before any step, and are equal. Steps are small: by its counts Adam makes as much of a gradient that is rounding
    alone as of any other, so what rounding differs in grows from epoch to epoch."""
    command = COMMANDS[name].replace("--instances 4", "--instances 2")
    if name == "dbscan":
        command = command.replace("0.05", "0.00001") + " --memory-update plain"
    arguments = [*command.split(), TOY, str(dataset)]
    plan: dict[str, Any] = MAIN
    for devices in (1, 8):
        out = tmp_path / str(devices)
        assert ended([start([RUN, json.dumps(plan), *arguments, str(out)], cache, devices)])[0][0] == 0
        plan = MAIN | ({"labels": str(out)} if name == "dbscan" else {})
    one, eight = tmp_path / "1", tmp_path / "8"
    losses = [[row["loss"] for row in steps(out)] for out in (one, eight)]
    assert len(losses[0]) == 12
    np.testing.assert_allclose(*losses, rtol=1e-3)
    for file in one.glob("labels/*.npz"):
        np.testing.assert_array_equal(np.load(file)["labels"], np.load(eight / "labels" / file.name)["labels"])
