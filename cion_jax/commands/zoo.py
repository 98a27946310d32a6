"""`cion zoo`: what backbones there are."""

from dataclasses import asdict
from json import dumps
from typing import Annotated

from rich.table import Column, Table
from tyro.conf import Positional, arg

from cion_jax.terminal import Console


def zoo(name: Annotated[Positional[str | None], arg(metavar="NAME")] = None, json: bool = False) -> None:
    """List all backbones with their size and cost, or show the layers of one.

    Multiply-adds are those of matrix products and convolutions for one image of 256x128, counted from what JAX would
    run. The columns called "paper" are what the CION paper prints; its costs are up to 0.08 G higher, as if norms,
    activations and pooling were counted too.

    Args:
        name: One backbone, to see its layers and stages; without it all are listed.
        json: Print JSON instead of tables.
    """
    from cion_jax.models.complexity import measure
    from cion_jax.models.zoo import ZOO, backbone
    from cion_jax.terminal import progress_bar

    if name is not None:
        _show(name, json)
        return
    sizes = []
    with progress_bar("tracing backbones", len(ZOO)) as progress:
        for each in ZOO:
            sizes.append(measure(backbone(each)))
            progress(1)
    if json:
        print(dumps([asdict(size) for size in sizes], indent=1))
        return
    numbers = ("parameters, M", "paper", "multiply-adds, G", "paper", "width")
    table = Table(Column("name", no_wrap=True), *(Column(each, justify="right") for each in numbers), "family", "paper")
    for size in sizes:
        table.add_row(
            size.name,
            f"{size.parameters / 1e6:.2f}",
            _number(size.published_parameters),
            f"{size.multiply_adds / 1e9:.2f}",
            _number(size.published_multiply_adds),
            str(size.width),
            size.family,
            size.paper,
        )
    Console().print(table)


def _show(name: str, json: bool) -> None:
    from cion_jax.models.complexity import layers, measure
    from cion_jax.models.zoo import backbone

    model = backbone(name)
    rows = layers(model)
    size = measure(model)
    stages: dict[str, int] = {}
    for row in rows:
        stages[row.stage] = stages.get(row.stage, 0) + row.parameters
    if json:
        print(dumps({**asdict(size), "stages": stages, "layers": [asdict(row) for row in rows]}, indent=1))
        return
    console = Console()
    table = Table("layer", "shapes", Column("parameters", justify="right"))
    for row in rows:
        table.add_row(row.name, row.shapes, f"{row.parameters:,}")
    console.print(table)
    table = Table("stage", Column("parameters", justify="right"))
    for stage, count in stages.items():
        table.add_row(stage, f"{count:,}")
    console.print(table)
    console.print(
        f"{name} ({size.family}, {size.paper}): {size.parameters:,} parameters, "
        f"{size.multiply_adds / 1e9:.2f} G multiply-adds at 256x128, features of {size.width}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
