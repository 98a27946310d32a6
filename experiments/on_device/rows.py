"""The rows of `run.sh`: checks, then benchmarks in the order of their worth, within eight minutes.

python -m experiments.on_device.rows results                  # on a GPU: results.json
python -m experiments.on_device.rows results --rehearse       # small enough for a CPU
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tyro.conf import Positional

from experiments.benchmarks.command import command
from experiments.benchmarks.suite import SUITE, Results, keep, read, run

#: What a rehearsal asks of a benchmark of the step.
_SMALL = "experiments/on_device/rehearsal.py --rounds 1 --steps 1"


class Row(NamedTuple):
    """A benchmark of the suite that wants a device."""

    seconds: int
    """The most that it may take."""
    rehearsal: str
    """Its arguments where it only has to run from start to end."""


#: By their names in the suite, in the order of their worth.
ROWS = {
    "device_checks": Row(200, "pytest -n 0 tests/test_head.py"),
    "device_roofline": Row(150, f"benchmarks.roofline {_SMALL}"),
    "device_denoise": Row(60, "benchmarks.denoise --images 10000 --widths 64"),
    # PyTorch compiles for two minutes, and both sides twice: what is behind it may find no time left.
    "device_step": Row(330, f"benchmarks.gpu {_SMALL}"),
}


def main(out: Positional[Path], only: tuple[str, ...] = (), rehearse: bool = False, seconds: int = 470) -> int:
    """Run them one after the other, and keep each row's result at once.

    A row that fails or takes too long is a result that says so, with the lines that it printed until then; so is a row
    for which no time is left.

    Args:
        out: Path of the results, without a suffix.
        only: Names of rows to run; all by default.
        rehearse: Only small sizes, for a CPU, and without limits of time: however slow it is, nothing is lent.
        seconds: The most that all rows may take together.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several checks share the device
    path = out.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    results: Results = read(path)
    end = time.perf_counter() + seconds
    names = only or tuple(ROWS)
    for name in names:
        row = ROWS[name]
        benchmark = replace(SUITE[name], arguments=row.rehearsal) if rehearse else SUITE[name]
        results[name] = run(benchmark, None if rehearse else min(row.seconds, end - time.perf_counter()))
        keep(results, path)
        outcome = "done" if results[name]["ok"] else "FAILED"
        print("\n".join(results[name]["printed"]))
        print(f"{name}: {outcome} in {results[name]['seconds']:,.0f} s\n", flush=True)
    return 0 if all(results[name]["ok"] for name in names) else 1


if __name__ == "__main__":
    command(main)
