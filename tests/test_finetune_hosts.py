"""Fine-tuning and adaptation on two processes end with the numbers of one, though one of the two is killed."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from finetuned import COMMANDS, TOY
from processes import ended, free_address, start, steps

pytestmark = [pytest.mark.xdist_group("hosts"), pytest.mark.slow]

RUN = str(Path(__file__).parent / "support" / "finetuned_run.py")
#: Three epochs of five steps; a checkpoint also after the sixth.
LENGTH = "--epoch-steps 5 --checkpoint-steps 6".split()  # noqa: SIM905
#: Only the process that keeps the journal finds clusters.
OTHER = {"without": "sklearn"}


def launch(name: str, data: Path, out: Path, cache: Path, *plans: dict[str, object]) -> list[int]:
    """Run to the end, with a process for each plan; one process has two devices. Their exit codes.

    Once one is killed the others are ended, as launchers do: they would wait for it for a minute.
    """
    address = free_address()
    among = ["--coordinator", address, "--processes", str(len(plans)), "--process"]
    command = [*COMMANDS[name].split(), *LENGTH, TOY, str(data), str(out)]
    processes = [
        start([RUN, json.dumps(plan), *command, *([*among, str(number)] * (len(plans) > 1))], cache, 3 - len(plans))
        for number, plan in enumerate(plans)
    ]
    if any("killed" in plan for plan in plans):
        processes[-1].wait(240)
        for process in processes:
            process.kill()
    done = ended(processes)
    assert all(code in (0, -9) for code, _ in done), done
    return [code for code, _ in done]


@pytest.mark.parametrize("name", ["bnneck", "dbscan"])
def test_two_processes_end_with_the_numbers_of_one(name: str, dataset: Path, tmp_path: Path) -> None:
    one, two, cache = (tmp_path / folder for folder in ("one", "two", "cache"))
    assert launch(name, dataset, one, cache, {}) == [0]
    assert launch(name, dataset, two, cache, {}, OTHER | {"killed": 6})[1] == -9
    assert 7 <= len(steps(two)) < 15 and not (two / "labels" / "epoch-00002.npz").exists()
    assert launch(name, dataset, two, cache, {}, OTHER) == [0, 0]

    rows, same = steps(one), steps(two)
    assert len(rows) == len(same) == 15
    for row, again in zip(rows, same, strict=True):
        assert row.keys() == again.keys()
        np.testing.assert_allclose(list(row.values()), [again[key] for key in row], rtol=1e-5)
    files = sorted(path.relative_to(one) for path in (*one.glob("*.safetensors"), *one.glob("labels/*.npz")))
    assert len(files) == (4 if name == "dbscan" else 2)
    for file in files:
        if file.suffix == ".npz":
            np.testing.assert_array_equal(np.load(one / file)["labels"], np.load(two / file)["labels"])
            continue
        weights, again = load_file(one / file), load_file(two / file)
        assert weights.keys() == again.keys()
        for key in weights:
            np.testing.assert_allclose(weights[key], again[key], atol=1e-5, err_msg=key)
