"""Fine-tuning and adaptation on two processes end with the bits of one, though one of the two is killed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuned import COMMANDS, TOY
from processes import ended, free_address, start, steps

pytestmark = [pytest.mark.xdist_group("hosts"), pytest.mark.slow]

RUN = str(Path(__file__).parent / "support" / "finetuned_run.py")
#: Three epochs of five steps; a checkpoint also after the sixth.
LENGTH = "--epoch-steps 5 --checkpoint-steps 6".split()  # noqa: SIM905
#: Devices embed equal numbers of images at once: how a convolution rounds depends on it, and an adaptation of so small
#: a network makes other clusters of one bit.
MAIN = {"rows": 64}
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
        processes[-1].wait(240)
        for process in processes:
            process.kill()
    done = ended(processes)
    assert all(code == (-9 if is_killed else 0) for code, _ in done[is_killed:]), done


@pytest.mark.parametrize("name", ["bnneck", "dbscan"])
def test_two_processes_end_with_the_bits_of_one(name: str, dataset: Path, tmp_path: Path) -> None:
    one, two, cache = (tmp_path / folder for folder in ("one", "two", "cache"))
    launch(name, dataset, one, cache, MAIN)
    launch(name, dataset, two, cache, MAIN, OTHER | {"killed": 6})
    assert 6 <= len(steps(two)) < 15 and not (two / "labels" / "epoch-00002.npz").exists()
    launch(name, dataset, two, cache, MAIN, OTHER)

    rows = steps(one)
    assert len(rows) == 15 and steps(two) == rows
    files = sorted(path.relative_to(one) for path in (*one.glob("*.safetensors"), *one.glob("labels/*.npz")))
    assert len(files) == (4 if name == "dbscan" else 2)
    for file in files:
        if file.suffix == ".npz":
            np.testing.assert_array_equal(np.load(one / file)["labels"], np.load(two / file)["labels"])
        else:
            assert (one / file).read_bytes() == (two / file).read_bytes()
