"""All benchmarks, one after the other: OUT.md has what each of them prints, OUT.json the same as data.

pip install -e '.[test,torch,tensorflow]' && python -m experiments.benchmarks.suite OUT     # some hours on two cores
python -m experiments.benchmarks.suite OUT --only order checkpoint

Each runs in a process of its own. What is there already of OUT.json is kept, so that a suite that was stopped goes on.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tyro.conf import Positional

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment


class Benchmark(NamedTuple):
    """A benchmark and how it is called."""

    title: str
    command: str


SUITE = {
    "records": Benchmark("Reading images", "benchmarks.records"),
    "pipeline": Benchmark("Reading images on more cores", "benchmarks.pipeline"),
    "order": Benchmark("The order of training", "benchmarks.order --images 10000000 --identities 600000"),
    "store": Benchmark("Reading from a store that answers late", "benchmarks.store"),
    "index": Benchmark("The index", "benchmarks.index"),
    "denoising": Benchmark("Who is who", "denoising"),
    "denoise": Benchmark("Who is who, as it grows", "benchmarks.denoise"),
    "evaluate": Benchmark("Scores", "benchmarks.evaluate --rerank"),
    "loss": Benchmark("The loss", "benchmarks.loss --block 2048"),
    "augment": Benchmark("Crops", "benchmarks.augment"),
    "backbone": Benchmark("A backbone", "benchmarks.backbone"),
    "step": Benchmark("The step", "benchmarks.step resnet18 --height 64 --local-crops 2"),
    "roofline": Benchmark("The step and its bounds", "benchmarks.roofline resnet18 --height 64 --local-crops 2"),
    "gpu": Benchmark("The step beside PyTorch's", "benchmarks.gpu resnet50_ibn --height 64 --local-crops 2"),
    "checkpoint": Benchmark("Checkpoints", "benchmarks.checkpoint"),
    "compile": Benchmark("Compiling", "benchmarks.compile"),
    "projection": Benchmark("The whole job, on paper", "benchmarks.projection"),
}
_TABLE_ROW = re.compile(r"\|(.+)\|")


def main(out: Positional[Path], only: tuple[str, ...] = ()) -> int:
    """Run the suite, or some of it.

    Args:
        out: Path of the results, without a suffix.
        only: Names of benchmarks; all by default.
    """
    if unknown := [name for name in only if name not in SUITE]:
        raise UserError(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(SUITE)}")
    path = out.with_suffix(".json")
    try:
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} holds no results of this suite ({error}); move it away to begin anew") from None
    for name in only or SUITE:
        if name not in found or not found[name]["ok"]:
            found[name] = run(SUITE[name])
            print(f"{name}: {'done' if found[name]['ok'] else 'FAILED'} in {found[name]['seconds']:,.0f} s", flush=True)
            write_atomically(path, lambda aside: aside.write_text(json.dumps(found, indent=1) + "\n"))
    write_atomically(out.with_suffix(".md"), lambda aside: aside.write_text(markdown(found)))
    return 0 if all(found[name]["ok"] for name in only or SUITE) else 1


def run(benchmark: Benchmark) -> dict[str, Any]:
    """What a benchmark printed, and its tables as rows of cells."""
    began = time.perf_counter()
    command = [sys.executable, "-m", f"experiments.{benchmark.command.split()[0]}", *benchmark.command.split()[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return {
        "command": f"python -m experiments.{benchmark.command}",
        "environment": environment("jax", "jaxlib", "numpy", "torch", "tensorflow"),
        "seconds": round(time.perf_counter() - began, 1),
        "ok": done.returncode == 0,
        "printed": done.stdout,
        "rows": [[cell.strip() for cell in row.split("|")] for row in _TABLE_ROW.findall(done.stdout)],
    }


def markdown(found: dict[str, Any]) -> str:
    """What was printed, each under its title and its command."""
    parts = ["# Benchmarks\n"]
    for name, benchmark in SUITE.items():
        if name in found:
            text = found[name]["printed"].strip() if found[name]["ok"] else "It failed."
            parts.append(f"## {benchmark.title}\n\n    {found[name]['command']}\n\n{text}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    command(main)
