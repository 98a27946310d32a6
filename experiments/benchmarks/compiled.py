"""What does XLA make of the step for TPUs and GPUs? Compiled here for devices that are not there, and read.

pip install -e ".[tpu]"
python -m experiments.benchmarks.compiled resnet50_ibn vit_small --devices v5e:2x4 --images 48
python -m experiments.benchmarks.compiled                                  # what is kept in compiled.json, as tables

Nothing runs: a time is the compiler's own estimate for a TPU, kernels one after the other, and for a GPU, for which it
makes none, the roofline of each kernel. Bytes are those that kernels read and write in the device's memory, as the
program lays arrays out, with their padding. A row of ResNet-50 takes ten minutes of a core and 8 GB.
"""

import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tyro.conf import Positional

from cion_jax.atomic import write_atomically
from cion_jax.config import Pretraining
from cion_jax.programs.account import Account, account, table
from cion_jax.programs.devices import Sheet, sheet_of
from cion_jax.programs.target import absent_devices
from cion_jax.recipes import recipe
from cion_jax.run.forecast import fitting_step, memory_limit
from cion_jax.run.method import abstract_state
from cion_jax.run.pretraining import instances_at, pretraining
from cion_jax.run.sharding import make_mesh
from experiments.benchmarks.command import command

#: Parts of a step that are not the networks' own; "other" is of no known part, such as copies ahead of time.
BESIDE_NETWORKS = ("crops", "loss", "loss, backward", "update")
#: Rows that were compiled, by what was asked for.
KEPT = Path(__file__).with_name("compiled.json")


class Row(NamedTuple):
    """A compiled step, in figures; of one device where nothing else is said."""

    name: str
    devices: str
    model_axis: int
    label: str
    """"now", or what the program was before a change."""
    images: int
    """That went through at once."""
    asked: int
    """Images that were asked for; more than `images` where these did not fit."""
    gigabytes: float
    limit: float
    is_donated: bool | None
    collectives: dict[str, tuple[int, int]]
    types: dict[str, tuple[int, int]]
    """Convolutions and products by their operands' type: how many, and operations."""
    flops: int
    bytes: int
    least: dict[str, float]
    """Seconds that operations and bytes need at the least."""
    is_estimated: bool
    seconds: float
    parts: dict[str, float]
    sorts: dict[str, float]
    text: int
    """Bytes of the program's text."""
    compiling: float
    """CPU seconds."""
    jax: str
    moved: dict[str, float]
    """Bytes by part; empty in rows that were compiled before these were kept."""


def main(
    names: Positional[tuple[str, ...]] = (),
    devices: str = "v5e:2x4",
    images: int = 48,
    model_axis: int = 1,
    label: str = "now",
) -> None:
    """Compile rows for devices that are not there, keep their figures, and print all that is kept as Markdown tables.

    Args:
        names: Rows, or files of settings; without any nothing is compiled.
        devices: Such as v5e:2x4, v5p:2x2x2 or h100:1x1x8.
        images: That each device is given at a time.
        model_axis: Devices that share the prototypes.
        label: What the programs are, to tell them from those before a change.
    """
    there = absent_devices(devices) if names else []
    for name in names:
        settings = replace(recipe(name), model_axis=model_axis, batch=images * len(there), accumulate=1)
        row = compiled(settings, there, name, devices, label)
        keep(row)
    show(kept())


def compiled(settings: Pretraining, there: list[jax.Device], name: str, devices: str, label: str) -> Row:
    """Compile the step of the last stage, and read it."""
    sheet = sheet_of(there[0].device_kind)
    assert sheet is not None
    mesh = make_mesh(len(there), settings.model_axis, there)
    method = pretraining(settings, there)
    began = _cpu_seconds()
    fitting, program, _ = fitting_step(method, instances_at(settings, settings.epochs - 1), mesh)
    compiling = _cpu_seconds() - began
    read = account(program, sheet, len(jax.tree.leaves(abstract_state(method, mesh))))
    return Row(
        name=name,
        devices=devices,
        model_axis=settings.model_axis,
        label=label,
        images=fitting.settings.batch // len(there),
        asked=settings.batch // len(there),
        gigabytes=read.total_memory / 1e9,
        limit=memory_limit(there[0]) / 1e9,
        is_donated=read.is_donated,
        collectives=read.collectives,
        types=read.operand_types(),
        flops=read.flops,
        bytes=read.bytes,
        least=_least(read, sheet),
        is_estimated=read.is_estimated,
        seconds=read.seconds,
        parts=read.shares("part"),
        sorts=read.shares("sort"),
        text=read.code,
        compiling=compiling,
        jax=jax.__version__,
        moved=read.shares("part", "bytes"),
    )


def _least(read: Account, sheet: Sheet) -> dict[str, float]:
    return {"operations": read.flops / sheet.flops, "bytes": read.bytes / sheet.bandwidth}


def _cpu_seconds() -> float:
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def keep(row: Row) -> None:
    """Add a row to those that are kept, in the place of an older one of the same program."""
    rows = {_key(each): each for each in kept()} | {_key(row): row}
    text = ",\n".join(json.dumps(each._asdict()) for each in rows.values())
    write_atomically(KEPT, lambda path: path.write_text(f"[\n{text}\n]\n"))


def _key(row: Row) -> tuple[Any, ...]:
    return row.name, row.devices, row.model_axis, row.asked, row.label


def kept() -> list[Row]:
    """The rows that are kept."""
    return [Row(**fields) for fields in json.loads(KEPT.read_text())] if KEPT.exists() else []


#: Titles of the main table, and what stands under them.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "step": lambda row: row.name + f", {row.model_axis} share prototypes" * (row.model_axis > 1),
    "devices": lambda row: row.devices,
    "program": lambda row: row.label,
    "images": lambda row: f"{row.images}" + f" ({row.asked} do not fit)" * (row.asked > row.images),
    "GB": lambda row: f"{row.gigabytes:.2f} of {row.limit:.0f}",
    "all-reduce: number, MB": lambda row: _collective(row, "all-reduce"),
    "others": lambda row: ", ".join(f"{count} {name}" for name, (count, _) in others(row).items()) or "none",
    "GFLOP an image": lambda row: f"{row.flops / row.images / 1e9:,.1f}",
    "MB an image": lambda row: f"{row.bytes / row.images / 1e6:,.0f}",
    "at least, ms": lambda row: f"{1e3 * max(row.least.values()):,.1f}, {max(row.least, key=row.least.__getitem__)}",
    "ms": lambda row: f"{1e3 * row.seconds:,.1f}" + " (roofline)" * (not row.is_estimated),
    "images/s": lambda row: f"{row.images / row.seconds:,.0f}",
    "MFU": lambda row: f"{row.least['operations'] / row.seconds:.0%}",
    "beside the networks: time, bytes": lambda row: ", ".join(f"{each:.1%}" for each in beside_networks(row)),
    "crops": lambda row: f"{row.parts.get('crops', 0) / row.seconds:.1%}",
    "copies": lambda row: f"{row.sorts.get('copies', 0) / row.seconds:.1%}",
    "text, MB": lambda row: f"{row.text / 1e6:.1f}",
    "compiling, CPU s": lambda row: f"{row.compiling:,.0f}",
}


def _collective(row: Row, name: str) -> str:
    count, size = row.collectives.get(name, (0, 0))
    return f"{count}, {size / 1e6:,.0f}"


def beside_networks(row: Row) -> list[float]:
    """Shares of time and bytes of what is neither student nor teacher, as far as they are kept."""
    named = [parts for parts in (row.parts, row.moved) if "student" in parts]
    return [sum(parts.get(name, 0) for name in BESIDE_NETWORKS) / sum(parts.values()) for parts in named]


def others(row: Row) -> dict[str, tuple[int, int]]:
    """Collectives that are not all-reduces."""
    return {name: each for name, each in row.collectives.items() if name != "all-reduce"}


def show(rows: list[Row]) -> None:
    """Print the rows, and where the time goes."""
    versions = ", ".join(sorted({row.jax for row in rows})) or "none"
    print(f"COMPILED, not run. JAX {versions}; figures of one device\n")
    print("\n".join(table("|".join(COLUMNS), [tuple(cell(row) for cell in COLUMNS.values()) for row in rows])))
    for title, of in (("by part", "parts"), ("by kind", "sorts")):
        names = list(dict.fromkeys(name for row in rows for name in getattr(row, of)))
        cells = [
            (row.name, row.devices, row.label, *(f"{1e3 * getattr(row, of).get(name, 0):,.1f}" for name in names))
            for row in rows
        ]
        print(f"\nMilliseconds {title}:\n")
        print("\n".join(table("|".join(["step", "devices", "program", *names]), cells)))


if __name__ == "__main__":
    command(main)
