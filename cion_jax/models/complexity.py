"""How large and how costly a backbone is, counted from what JAX would run."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from cion_jax.models.zoo import Backbone, Variables, place

#: Parameters in millions and multiply-adds in billions at 256x128, as the CION paper prints them; None where its
#: parameter count is not that of the published code.
PUBLISHED: dict[str, tuple[float | None, float]] = {
    "resnet18": (11.18, 2.00), "resnet50": (23.51, 4.09), "resnet101": (42.50, 6.54), "resnet152": (58.14, 8.98),
    "ghostnet_0_5": (1.31, 0.03), "ghostnet_1_0": (3.90, 0.10), "ghostnet_1_3": (6.08, 0.16),
    "edgenext_x_small": (2.14, 0.27), "edgenext_small": (5.28, 0.63), "edgenext_base": (17.93, 1.92),
    "repvit_m0_9": (4.72, 0.56), "repvit_m1_0": (6.40, 0.75), "repvit_m1_5": (13.62, 1.54),
    "fastvit_s12": (8.45, 0.93), "fastvit_sa12": (10.56, 1.00), "fastvit_sa24": (20.53, 1.92),
    "convnext_tiny": (27.82, 2.92), "convnext_small": (49.45, 5.68), "convnext_base": (87.57, 10.04),
    "vit_tiny": (None, 1.55), "vit_small": (None, 3.79), "vit_base": (None, 12.37),
    "swin_tiny": (27.53, 3.13), "swin_small": (48.85, 5.93), "swin_base": (86.76, 10.44),
    "volo_d1": (25.84, 4.40), "volo_d2": (57.62, 9.15), "volo_d3": (85.26, 13.26),
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """What a backbone is and costs."""

    name: str
    family: str
    paper: str
    parameters: int
    multiply_adds: int
    """For one image of 256x128."""
    width: int
    """Length of the feature vector."""
    published_parameters: float | None
    published_multiply_adds: float | None


@dataclass(frozen=True)
class Layer:
    """One layer's own parameters."""

    name: str
    stage: str
    shapes: str
    parameters: int


def measure(model: Backbone) -> Size:
    """Size and cost of a backbone; nothing is computed, only traced."""
    shapes = model.shapes()
    image = jax.ShapeDtypeStruct((1, 256, 128, 3), jnp.float32)
    traced, features = jax.make_jaxpr(countable(model).apply, return_shape=True)(shapes, image)
    published_parameters, published_multiply_adds = PUBLISHED.get(model.name.removesuffix("_ibn"), (None, None))
    return Size(
        name=model.name,
        family=model.family,
        paper=model.paper,
        parameters=parameters(shapes),
        multiply_adds=multiply_adds(traced.jaxpr),
        width=features.shape[-1],
        published_parameters=published_parameters,
        published_multiply_adds=published_multiply_adds,
    )


def countable(model: Backbone) -> Backbone:
    """The model to count multiply-adds of: in XLA's own forms. CPUs' have convolutions that are sums, which are not
    counted; TPUs' have products with zeros, which would be."""
    return replace(model, platform="gpu")


def parameters(variables: Variables) -> int:
    """Trainable numbers in a pytree of variables or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def layers(model: Backbone) -> list[Layer]:
    """The layers that have parameters, in PyTorch's order."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}  # of its leaves, by layer
    for path, leaf in jax.tree_util.tree_flatten_with_path(model.shapes()["params"])[0]:
        names = [entry.key for entry in path]
        layer = ".".join(names[:-1]) or names[-1]
        shapes.setdefault(layer, {})[names[-1]] = leaf.shape
    return [_layer(name, shapes[name]) for name in sorted(shapes, key=lambda name: place(name, model.order))]


def _layer(name: str, shapes: dict[str, tuple[int, ...]]) -> Layer:
    described = [f"{leaf} {'x'.join(map(str, shape))}" for leaf, shape in shapes.items()]
    return Layer(name, _stage(name), ", ".join(described), sum(map(math.prod, shapes.values())))


def _stage(name: str) -> str:
    """The part of the network that a layer belongs to: the first word, and its number where it lists whole stages."""
    words = name.split(".")
    lists_stages = len(words) > 2 and words[1].isdigit() and (words[2].isdigit() or words[0] == "layers")
    return ".".join(words[:2]) if lists_stages else words[0]


def multiply_adds(jaxpr: core.Jaxpr) -> int:
    """Multiply-adds of the matrix products and convolutions in a traced function."""
    own = sum(_COSTS.get(equation.primitive.name, _nothing)(equation) for equation in jaxpr.eqns)
    inner = sum(multiply_adds(program) for equation in jaxpr.eqns for program in _inner(equation))
    return own + inner


def _inner(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    for value in equation.params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _nothing(equation: core.JaxprEqn) -> int:
    return 0


def _product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    return math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: core.JaxprEqn) -> int:
    kernel = _shape(equation.invars[1])
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(_shape(equation.outvars[0])) * math.prod(kernel) // outputs


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


_COSTS: dict[str, Callable[[Any], int]] = {"dot_general": _product, "conv_general_dilated": _convolution}
