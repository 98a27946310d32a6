"""How the benchmarks measure: contestants take turns, and what is printed are medians and ratios of one run."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def environment(*packages: str) -> str:
    """One line that says what the figures were measured on."""
    return ", ".join(
        [f"{len(os.sched_getaffinity(0))} cores ({platform.machine()})", f"Python {platform.python_version()}"]
        + [f"{package} {_version(package)}" for package in packages]
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def resident(field: str) -> int:
    """Bytes of this process in memory, now ("VmRSS") or at its largest ("VmHWM"), as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def rates(contestants: Mapping[str, Callable[[], int]], rounds: int, settle: int = 0) -> dict[str, list[float]]:
    """Items per second of each contestant in each round; a call does some work and returns how many items it did.

    They take turns, so that a machine that grows slower does so for all of them. The first round is not counted, nor
    are `settle` calls before each one that is: in earnest, work on gigabytes is done again and again, and finds its
    memory as it left it.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            for _ in range(settle):
                work()
            began = time.perf_counter()
            items = work()
            if number:
                speeds[name].append(items / (time.perf_counter() - began))
    return speeds


def table(speeds: Mapping[str, list[float]], unit: str) -> str:
    """Markdown: median, range, and the first contestant's advantage, as the median of the ratios round by round."""
    first = next(iter(speeds.values()))
    lines = [f"| | {unit} (median) | range | first / this |", "|---|---|---|---|"]
    for name, values in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        spread = f"{_figure(min(values))} to {_figure(max(values))}"
        lines.append(f"| {name} | {_figure(statistics.median(values))} | {spread} | {ratio:.2f} |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
