"""The paper's 32 backbones and a small one, as pairs of pure functions: the seam behind which Flax modules stay."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.config import MEAN, STD, Kernel
from cion_jax.errors import UserError
from cion_jax.models import convnext, edgenext, fastvit, ghostnet, repvit, resnet, swin, vit, volo
from cion_jax.models.ops import traced_for

#: A pytree of arrays: {"params": ..., "batch_stats": ...}, the latter only where there is a BatchNorm.
Variables = dict[str, Any]


@partial(jax.jit, static_argnums=(0, 1, 2))  # here, so that a process compiles it once for each network
def _fresh(module: nn.Module, image_size: tuple[int, int], platform: str, key: Array) -> Variables:
    with traced_for(platform):
        variables = module.init(key, jnp.zeros((1, *image_size, 3)), False)
    return {name: value for name, value in variables.items() if name != "features"}


@dataclass(frozen=True)
class Backbone:
    """A network without its weights."""

    name: str
    family: str
    paper: str
    order: Sequence[str]
    """The names of layers and parameters in the order in which PyTorch registers them."""
    image_size: tuple[int, int]
    """Height and width that tables of positions are made for; images of other sizes are taken all the same."""
    is_fused: bool
    """Whether this is the single-branch form, which only computes features."""
    _module: nn.Module
    _fuse: Callable[[Variables], Variables] | None
    platform: str = field(default_factory=jax.default_backend)
    """What it is traced for: "cpu", "gpu" ("cuda" is as good) or "tpu"; it runs on the others too, if slowly."""
    mean: tuple[float, float, float] = MEAN
    """What is taken off the channels of its images, whose values are 0 to 1;"""
    std: tuple[float, float, float] = STD
    """and what they are then divided by."""
    resize: Kernel = "bilinear"
    """How images of another size are brought to its own."""

    def init(self, key: Array, param_dtype: Any = jnp.float32) -> Variables:
        """Fresh variables."""
        variables = _fresh(self._module, self.image_size, self.platform, key)
        return jax.tree.map(lambda leaf: leaf.astype(param_dtype), variables)

    def shapes(self) -> Variables:
        """The shapes and types of `init`'s result, without computing it."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def width(self, image_size: tuple[int, int]) -> int:
        """Numbers in a feature; a size of images with which the network does not work is refused, without computing."""
        height, columns = image_size
        mistake = f"{self.name} cannot take images of {height}x{columns}; larger ones it can, say 256x128"
        image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
        try:
            program, out = jax.make_jaxpr(self.apply, return_shape=True)(self.shapes(), image)
        except Exception as error:  # each family stumbles in its own way
            raise UserError(mistake) from error
        if any(0 in value.aval.shape for step in program.eqns for value in step.outvars):
            raise UserError(mistake)  # nothing is left of the image
        return out.shape[-1]

    def apply(
        self,
        variables: Variables,
        images: Array,
        *,
        train: bool = False,
        rng: Array | None = None,
        return_features: bool = False,
    ) -> Any:
        """Features (N, width) of images (N, H, W, 3), computed in the images' type.

        With `train` batch statistics are used, and the result is a pair: features, and the variables with running
        statistics moved on; `rng` is for drop path, where a backbone has it. With `return_features` the features become
        a pair of themselves and a dict of named intermediates.
        """
        mutable = ["features"] * return_features + ["batch_stats"] * train
        rngs = None if rng is None else {"drop_path": rng}
        with traced_for(self.platform):
            out, state = self._module.apply(variables, images, train, mutable=mutable, rngs=rngs)
        features = (out, dict(state.get("features", {}))) if return_features else out
        if not train:
            return features
        return features, variables | {name: moved for name, moved in state.items() if name == "batch_stats"}

    def part(self, **fields: Any) -> "Backbone":
        """A part of this network, where its module says by fields where a part begins and ends."""
        return replace(self, _module=self._module.clone(**fields), _fuse=None)

    def fused(self, variables: Variables) -> tuple["Backbone", Variables]:
        """The single-branch form for inference and its variables: equal outputs, fewer parameters and operations."""
        form = self.fused_form()
        assert self._fuse is not None
        return form, self._fuse(variables)

    def fused_form(self) -> "Backbone":
        """The single-branch form of this backbone, without weights."""
        if self._fuse is None:
            raise UserError(f"{self.name} has no branches to fuse; take it as it is")
        return replace(self, is_fused=True, _module=self._module.clone(fused=True), _fuse=None)


def place(key: str, order: Sequence[str]) -> list[tuple[int, int]]:
    """Sorts dotted names as PyTorch registers them: numbers by value, words by their place in a family's order."""
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    rank = {name: number for number, name in enumerate((*order, *(leaf for leaf in leaves if leaf not in order)))}
    return [(0, int(word)) if word.isdigit() else (1, rank[word]) for word in key.split(".")]


@dataclass(frozen=True)
class Family:
    """Backbones that share a chapter: a module with the table `VARIANTS` and the `ORDER` of their keys in PyTorch."""

    name: str
    paper: str
    chapter: Any


_FAMILIES = (
    Family("ResNet", "arXiv 1512.03385, 1807.09441", resnet),
    Family("ConvNeXt", "arXiv 2201.03545", convnext),
    Family("EdgeNeXt", "arXiv 2206.10589", edgenext),
    Family("GhostNet", "arXiv 1911.11907", ghostnet),
    Family("RepViT", "arXiv 2307.09283", repvit),
    Family("FastViT", "arXiv 2303.14189", fastvit),
    Family("ViT", "arXiv 2010.11929, 2111.12084", vit),
    Family("Swin", "arXiv 2103.14030", swin),
    Family("VOLO", "arXiv 2106.13112", volo),
)

#: Family by backbone name.
ZOO: dict[str, Family] = {name: family for family in _FAMILIES for name in family.chapter.VARIANTS}


def check_name(name: str) -> None:
    """Answer the name of no backbone with near ones; unlike `backbone` it leaves JAX asleep."""
    if name not in ZOO:
        near = difflib.get_close_matches(name, ZOO, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ZOO)}"
        raise UserError(f"no backbone is called {name!r}; {hint}")


def backbone(
    name: str, *, image_size: tuple[int, int] = (256, 128), platform: str | None = None, **options: Any
) -> Backbone:
    """A backbone by its name, with tables of positions, where it has them, for images of a height and width.

    `platform` is that of the devices it will run on, by default JAX's default backend: it decides the forms in which
    convolutions are traced, and changes no number by more than rounding.

    Further options replace fields of the network: `remat=True` computes activations again in the backward pass,
    `drop_path=0.1` sets the last block's rate where a family has drop path.
    """
    check_name(name)
    family = ZOO[name]
    chapter = family.chapter
    module = chapter.VARIANTS[name]
    if unknown := sorted(options.keys() - {each.name for each in fields(module)}):
        raise UserError(f"{name} has no option {' or '.join(unknown)}")
    if hasattr(module, "image_size"):
        options["image_size"] = image_size
    return Backbone(
        name=name,
        family=family.name,
        paper=family.paper,
        order=tuple(chapter.ORDER.split()),
        image_size=image_size,
        is_fused=False,
        _module=module.clone(**options),
        _fuse=getattr(chapter, "fuse", None),
        platform=platform or jax.default_backend(),
    )
