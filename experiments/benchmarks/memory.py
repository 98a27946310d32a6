"""How many images fit on a device? An estimate from shapes alone: nothing is compiled, and no accelerator is needed.

python -m experiments.benchmarks.memory                  # every row; takes minutes
python -m experiments.benchmarks.memory resnet50_ibn     # one row, or a file of settings
python -m experiments.benchmarks.memory --write          # every row, into what_fits.json

Counted are student, teacher, the optimizer's moments, gradients and center; whatever the backward pass of the student's
two forwards (global and local crops) holds of each image; and with `remat` what it holds of the block that is being
computed again. Left out are the memory that XLA saves where it fuses operations, which makes figures too high, and what
it needs beside: workspace, padding, gaps between arrays, crops being made, the teacher's forward. Take the figures as a
first guess, and try it on the device for some steps. Images of a batch that do not fit at once go through in parts:
`accumulate` is how many.

The one check so far is resnet18 in float32, compiled by XLA for a CPU: 52 MB an image where 62 are estimated; with
`remat` 56 where 35 are estimated, so that it saved nothing there. No figure has been compared with a GPU or TPU.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core.primitives import remat_p
from tyro.conf import Positional

from cion_jax.atomic import write_atomically
from cion_jax.config import Pretraining
from cion_jax.errors import UserError
from cion_jax.models import head
from cion_jax.models.zoo import Backbone, backbone
from cion_jax.recipes import PAPER, RECIPES, recipe
from cion_jax.run.pretraining import PretrainingMethod
from experiments.benchmarks.command import command

#: Images that fit on a device, without and with `remat`, by backbone and by gigabytes.
WHAT_FITS = Path(__file__).with_name("what_fits.json")
#: Memory of a device, in units of 10^9 bytes, that figures are recorded for.
DEVICES = (16, 40, 80, 141)
#: Of it, what JAX takes on a GPU unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
SHARE = 0.75
#: Images come in multiples of this, which each K of the paper divides.
STEP = 24
#: Images that are traced: so many that copies of the parameters, which do not grow with them, vanish among them.
_IMAGES = 960


@dataclass(frozen=True)
class Need:
    """Bytes on a device that holds all prototypes."""

    fixed: int
    """Whatever the number of images."""
    image: int
    """For each image that is on the device at a time."""

    def fits(self, gigabytes: int) -> int:
        """Images that a device of this size holds."""
        return max(0, int((SHARE * gigabytes * 1e9 - self.fixed) // self.image)) // STEP * STEP


def needs(settings: Pretraining) -> tuple[Need, Need]:
    """What a training needs without and with `remat`."""
    crops = settings.crops
    dtype = jnp.dtype(settings.precision)
    model = partial(backbone, settings.backbone, image_size=crops.global_size, platform="gpu")
    plain = model()
    state = jax.eval_shape(PretrainingMethod(settings, plain).init, jax.random.key(0), {})
    fixed = bytes_of(state) + bytes_of(state.student)  # the latter as large as its gradients
    views = [
        jax.ShapeDtypeStruct((_IMAGES * count, *size, 3), dtype)
        for count, size in ((2, crops.global_size), (crops.local_crops, crops.local_size))
        if count
    ]
    inputs = state.student, state.batch_stats["student"], views, jax.eval_shape(lambda: jax.random.key(0))
    forward = partial(_forward, plain)
    with_remat = partial(_forward, model(remat=True))
    held = held_bytes(forward, *inputs)
    held_with_remat = held_bytes(with_remat, *inputs) + recomputed_bytes(with_remat, *inputs)
    return Need(fixed, held // _IMAGES), Need(fixed, held_with_remat // _IMAGES)


def _forward(model: Backbone, params: Any, statistics: Any, views: list[jax.Array], key: jax.Array) -> list[jax.Array]:
    """The student's way from crops to bottleneck vectors."""
    variables = {"params": params["backbone"]} | ({"batch_stats": statistics} if statistics else {})
    features = [model.apply(variables, view, train=True, rng=key)[0] for view in views]
    return [head.bottleneck({"params": params["head"]}, each) for each in features]


def held_bytes(function: Callable[..., Any], *inputs: Any) -> int:
    """Bytes that the backward pass to the first input holds when it begins."""

    def backward(first: Any, *others: Any) -> Any:
        return jax.vjp(lambda first: function(first, *others), first)[1]

    return bytes_of(jax.eval_shape(backward, *inputs))


def recomputed_bytes(function: Callable[..., Any], *inputs: Any) -> int:
    """Bytes that the largest block holds while it is computed again."""
    blocks = {}
    for equation in jax.make_jaxpr(function)(*inputs).jaxpr.eqns:
        if equation.primitive is remat_p:
            block = equation.params["jaxpr"]
            shapes = [variable.aval for variable in (*block.invars, *block.outvars)]
            blocks[len(block.eqns), str(shapes)] = block  # a stage's equal blocks only once
    return max(map(_held_by, blocks.values()), default=0)


def _held_by(block: core.Jaxpr) -> int:
    run = core.jaxpr_as_fun(core.ClosedJaxpr(block, ()))
    shapes: list[Any] = [variable.aval for variable in block.invars]
    inputs = [jax.ShapeDtypeStruct(shape.shape, shape.dtype) for shape in shapes]
    return bytes_of(jax.eval_shape(lambda *inputs: jax.vjp(run, *inputs)[1], *inputs))


def bytes_of(tree: Any) -> int:
    """Bytes of all arrays, or of all shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fits(both: tuple[Need, Need]) -> dict[int, tuple[int, int]]:
    """Images on a device by its memory, without and with `remat`: what `what_fits.json` records."""
    return {size: (both[0].fits(size), both[1].fits(size)) for size in DEVICES}


def main(name: Positional[str | None] = None, write: bool = False) -> None:
    """Print a Markdown table of estimates.

    Args:
        name: A row or a file of settings; without it all rows are listed.
        write: Also write what fits for each of the paper's backbones into what_fits.json.
    """
    if write and name:
        raise UserError(f"--write: all rows are written together; leave {name} out")
    recorded: dict[str, dict[int, tuple[int, int]]] = {}
    print(f"ESTIMATED images per device, in {SHARE:.0%} of its memory, without / with remat\n")
    print("| | fixed, GB | an image, MB | " + " | ".join(f"{size} GB" for size in DEVICES) + " |")
    print("|---|" + "---|" * (2 + len(DEVICES)))
    for each in [name] if name else RECIPES:
        plain, spared = needs(recipe(each))
        recorded[each] = fits((plain, spared))
        cells = [f"{plain.fixed / 1e9:.2f}", f"{plain.image / 1e6:.0f} / {spared.image / 1e6:.0f}"]
        cells += [f"{few} / {many}" for few, many in recorded[each].values()]
        print(f"| {each} | {' | '.join(cells)} |", flush=True)
    if write:
        rows = [f' "{each}": {json.dumps(recorded[each])}' for each in PAPER]
        write_atomically(WHAT_FITS, lambda path: path.write_text("{\n" + ",\n".join(rows) + "\n}\n"))


if __name__ == "__main__":
    command(main)
