"""All benchmarks, one after the other; and the tables of README.md and BENCHMARKS.md, written from what they print.

pip install -e '.[test,torch,tensorflow]' && python -m experiments.benchmarks.suite     # some hours on two cores
python -m experiments.benchmarks.suite --only order checkpoint                          # measured anew
python -m experiments.benchmarks.suite --write                                          # nothing is measured

Each benchmark runs in a process of its own. OUT.json keeps what it prints, and OUT.md has the same to read. A suite
that was stopped goes on where it was. With `--write` each result goes to its place on the pages, between the lines

<!-- begin NAME -->
<!-- end NAME -->

or only its second table, where it says NAME:2.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import dropwhile, groupby, zip_longest
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tyro.conf import Positional

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment


@dataclass(frozen=True)
class Benchmark:
    """A benchmark and how it is called."""

    title: str
    arguments: str
    """The module in `experiments/`, and its options; or a command of `cion` or `pytest`."""
    extras: str = ""
    """The package's extras that it needs."""
    only_by_name: bool = False
    """It needs files that are not in the repository, or a GPU, so it runs only when it is named."""
    only_tables: bool = False
    """Lines before the first table, which say how far it is, are not kept."""

    @property
    def command(self) -> str:
        """The command line that a user types."""
        install = f"pip install -e '.[{self.extras}]' && " if self.extras else ""
        return install + (self.arguments if self.is_program else f"python -m experiments.{self.arguments}")

    @property
    def is_program(self) -> bool:
        """Whether it is no module of `experiments/`."""
        return self.arguments.startswith(("cion ", "pytest "))

    @property
    def process(self) -> list[str]:
        """The same, as a process of this Python."""
        program, *options = shlex.split(self.arguments)
        if program == "cion":
            return [str(Path(sys.executable).with_name(program)), *options]
        return [sys.executable, "-m", program if program == "pytest" else f"experiments.{program}", *options]


REAL_FEATURES = "pku_reid_mobilenetv2.npz pets09_tracker_mobilenetv2.npz"
#: Golden features of the smallest of each family, also in bfloat16; steps of the published training; the loss by loops.
DEVICE_CHECKS = (
    "tests/test_loss.py tests/test_backbones.py tests/test_trajectory.py tests/test_zoo.py "
    "-k 'any_size or test_loss or float32 and resnet18_ibn or equal_the_golden and ("
    "resnet18_ibn or convnext_tiny or edgenext_x_small or ghostnet_0_5 or repvit_m0_9 or fastvit_sa12 or vit_tiny or "
    "swin_tiny or volo_d1)'"
)
SUITE = {
    "demo": Benchmark("The whole way", "cion demo cion-demo --seed 800 --seeds 5", only_tables=True),
    "records": Benchmark("Reading images", "benchmarks.records", "tensorflow"),
    "pipeline": Benchmark("Reading images on more cores", "benchmarks.pipeline --rounds 5"),
    "order": Benchmark("The order of training", "benchmarks.order"),
    "order_10m": Benchmark(
        "The order of training, ten million images", "benchmarks.order --images 10000000 --identities 600000"
    ),
    "store": Benchmark("Reading from a store that answers late", "benchmarks.store"),
    "index": Benchmark("The index", "benchmarks.index"),
    "denoising": Benchmark("Who is who", "denoising --alone", "test"),
    "denoising_real": Benchmark("Who is who, real people", f"denoising --features {REAL_FEATURES}", only_by_name=True),
    "denoise": Benchmark("Who is who, as it grows", "benchmarks.denoise"),
    "video": Benchmark(
        "People in a video", "benchmarks.video vtest.avi PETS09-S2L1.gt.txt", "video", only_by_name=True
    ),
    "video_memory": Benchmark("Memory of importing videos", "benchmarks.video_memory", "video"),
    "people": Benchmark(
        "Who is in a video",
        "benchmarks.people vtest.avi PETS09-S2L1.gt.txt",
        "video",
        only_by_name=True,
        only_tables=True,
    ),
    "evaluate": Benchmark("Scores", "benchmarks.evaluate --rerank"),
    "search": Benchmark("Asking a gallery", "benchmarks.search", "search"),
    "jaccard": Benchmark("Clusters without labels", "benchmarks.jaccard", "adapt"),
    "finetuning": Benchmark(
        "Does pre-training help the task",
        "finetuning cion-demo/seed-901 cion-demo/seed-902 cion-demo/seed-903",
        "adapt",
        only_by_name=True,
    ),
    "adaptation": Benchmark(
        "Settings of adaptation", "finetuning --choose cion-demo/seed-900", "adapt", only_by_name=True
    ),
    "finetune_step": Benchmark("The steps of fine-tuning", "benchmarks.finetune_step --batch 16", "torch"),
    "loss": Benchmark("The loss", "benchmarks.loss --block 2048", "torch"),
    "loss_120": Benchmark("The loss, 120 images", "benchmarks.loss --block 2048 --batch 120 --rounds 5"),
    "augment": Benchmark("Crops", "benchmarks.augment"),
    "backbone": Benchmark("A backbone", "benchmarks.backbone", "torch"),
    "backbone_unsettled": Benchmark(
        "A backbone, each step after the other's", "benchmarks.backbone --settle 0 --rounds 5"
    ),
    "step": Benchmark("The step", "benchmarks.step resnet18 --height 64 --local-crops 2"),
    "roofline": Benchmark("The step and its bounds", "benchmarks.roofline resnet18 --height 64 --local-crops 2"),
    "gpu": Benchmark("The step beside PyTorch's", "benchmarks.gpu resnet50_ibn --height 64 --local-crops 2", "torch"),
    "checkpoint": Benchmark("Checkpoints", "benchmarks.checkpoint"),
    "device_checks": Benchmark(
        "On a GPU: checks",
        f"pytest -n 8 -q -p no:benchmark -m '' -W default {DEVICE_CHECKS}",
        "test",
        only_by_name=True,
    ),
    "device_roofline": Benchmark(
        "On a GPU: the step and its bounds",
        "benchmarks.roofline resnet50_ibn --batch 120 --rounds 3 --steps 5",
        only_by_name=True,
    ),
    "device_step": Benchmark(
        "On a GPU: the step", "benchmarks.gpu resnet50_ibn --batch 120 --rounds 2 --steps 5", "torch", only_by_name=True
    ),
    "device_denoise": Benchmark(
        "On a GPU: who is who", "benchmarks.denoise --images 1000000 --widths 128", only_by_name=True
    ),
    "compile": Benchmark("Compiling", "benchmarks.compile"),
    "exports": Benchmark("Networks in other formats", "benchmarks.exports", "stablehlo,onnx"),
    "fuzz": Benchmark("Damaged files", "benchmarks.fuzz"),
    "kills": Benchmark("Killed, and gone on with", "benchmarks.kills"),
    "foreign": Benchmark("Weights of others", "benchmarks.foreign", "timm", only_by_name=True),
    "compiled": Benchmark("Programs for devices that are not there", "benchmarks.compiled"),
    "projection": Benchmark("The whole job, on paper", "benchmarks.projection"),
}
#: Where the repository keeps its results, and the pages that show them.
RESULTS = Path(__file__).with_name("results")
PAGES = tuple(Path(__file__).parents[2] / name for name in ("README.md", "BENCHMARKS.md"))
_MARK = re.compile(r"^<!-- (begin|end) (\S+) -->$", re.MULTILINE)

#: By the name of a benchmark: its command, when and on what it ran, and the lines that it printed.
Results = dict[str, dict[str, Any]]


def main(
    out: Positional[Path] = RESULTS, only: tuple[str, ...] = (), take: Path | None = None, write: bool = False
) -> int:
    """Run the suite or some of it, or write its results into the pages.

    Args:
        out: Path of the results, without a suffix.
        only: Names of benchmarks to measure anew; by default all of which there is no result yet.
        take: Measure nothing; take over the results in this file, which were measured on another machine.
        write: Measure nothing; write the results into README.md and BENCHMARKS.md.
    """
    if unknown := [name for name in only if name not in SUITE]:
        raise UserError(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(SUITE)}")
    path = out.with_suffix(".json")
    results = read(path)
    if take is not None:
        results |= read(take)
        keep(results, path)
    if write:
        return write_pages(results)
    if take is not None:
        return 0
    names = only or [name for name in SUITE if not SUITE[name].only_by_name and not results.get(name, {}).get("ok")]
    for name in names:
        results[name] = run(SUITE[name])
        outcome = "done" if results[name]["ok"] else "FAILED"
        print(f"{name}: {outcome} in {results[name]['seconds']:,.0f} s", flush=True)
        keep(results, path)
    write_atomically(out.with_suffix(".md"), lambda aside: aside.write_text(markdown(results)))
    return 0 if all(results[name]["ok"] for name in names) else 1


def read(path: Path) -> Results:
    """The results of earlier runs; none if there is no such file."""
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} holds no results of this suite ({error}); move it away to begin anew") from None


def keep(results: Results, path: Path) -> None:
    """Write them, whole or not at all."""
    write_atomically(path, lambda aside: aside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n"))


def run(benchmark: Benchmark, limit: float | None = None) -> dict[str, Any]:
    """The lines that a benchmark printed, and when and on what it ran; it has so many seconds, if there is a limit."""
    began = time.perf_counter()
    with TemporaryFile("w+") as output:
        process = subprocess.Popen(benchmark.process, stdout=output, start_new_session=True)
        try:
            done = process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            done = False
        finally:
            _end(process)
        output.seek(0)
        printed = output.read().strip().splitlines()
    if benchmark.only_tables:
        printed = [*dropwhile(lambda line: not line.startswith("|"), printed)]
    return {
        "command": benchmark.command,
        "environment": environment("jax", "jaxlib", "numpy", "torch", "tensorflow"),
        "date": date.today().isoformat(),
        "seconds": round(time.perf_counter() - began, 1),
        "ok": done,
        "printed": printed,
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it began."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def markdown(results: Results) -> str:
    """All results, each under its title."""
    parts = [f"## {SUITE[name].title}\n\n{block(results[name])}\n" for name in SUITE if name in results]
    return "\n".join(["# Benchmarks\n", *parts])


def block(result: dict[str, Any], table: str = "") -> str:
    """The command, the date, and what was printed, or only the table of a number, in Markdown."""
    text = "\n".join(result["printed"]) if result["ok"] else "It failed."
    if table:
        is_table = groupby(text.splitlines(), lambda line: line.startswith("|"))
        text = "\n".join([[*lines] for inside, lines in is_table if inside][int(table) - 1])
    if not any(line.startswith("|") for line in result["printed"]):
        text = f"```\n{text}\n```"  # lines without a table would run together
    measured = f"Measured on {result['date']}:\n\n" if result["date"] else ""
    return f"    {result['command']}\n\n{measured}{text}"


def write_pages(results: Results) -> int:
    """Write the results into all pages, and say which places have no result yet."""
    texts = {
        page: filled(page.name, page.read_text(), results) for page in PAGES
    }  # all are right before one is written
    for page, text in texts.items():
        write_atomically(page, lambda aside, text=text: aside.write_text(text))  # type: ignore[misc]
        for name in marked(page.name, text):
            if not _is_measured(name, results):
                command = f"python -m experiments.benchmarks.suite --only {name.partition(':')[0]}"
                print(f"{page.name}: no result of {name} yet; {command}")
    return 0


def filled(page: str, text: str, results: Results) -> str:
    """The text of a page, with the results in the places that are marked for them."""
    for name, place in marked(page, text).items():
        benchmark, _, table = name.partition(":")
        if _is_measured(name, results):
            shown = block(results[benchmark], table)
            text = text.replace(place, f"<!-- begin {name} -->\n\n{shown}\n\n<!-- end {name} -->")
    return text


def _is_measured(name: str, results: Results) -> bool:
    return bool(results.get(name.partition(":")[0], {}).get("ok"))


def marked(page: str, text: str) -> dict[str, str]:
    """The marked places of a page, with their marks, by the names of their benchmarks."""
    places: dict[str, str] = {}
    marks = list(_MARK.finditer(text))
    for begin, end in zip_longest(marks[::2], marks[1::2]):
        name, line = begin[2], text.count("\n", 0, begin.start()) + 1
        if name.partition(":")[0] not in SUITE:
            raise UserError(f"{page}, line {line}: no benchmark is called {name}; there are {', '.join(SUITE)}")
        if begin[1] != "begin" or end is None or end.groups() != ("end", name):
            raise UserError(f"{page}, line {line}: '{begin[0]}' is not one of a pair; write begin and end of {name}")
        if name in places:
            raise UserError(f"{page}, line {line}: {name} has a place already; leave one of them out")
        places[name] = text[begin.start() : end.end()]
    return places


if __name__ == "__main__":
    command(main)
