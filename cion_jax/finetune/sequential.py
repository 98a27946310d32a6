"""Parts of ResNets under the names that PyTorch's Sequential gives them: layers have numbers, counted in each part."""

from collections.abc import Mapping
from typing import Any

from jax import Array

from cion_jax.models.zoo import Backbone, Variables

_MOST_BLOCKS = 36  # in a stage: that of ResNet-152
#: From a backbone's names to those in a part.
Names = Mapping[str, str]

STEM: Names = {"conv1": "0", "bn1": "1"}


def stage_names(stage: int, number: int, first: int = 0) -> Names:
    """Names of a stage's blocks from `first` on, for a part that has the stage at a number and counts from 0."""
    return {f"layer{stage}.{first + block}": f"{number}.{block}" for block in range(_MOST_BLOCKS)}


def take_part(variables: Variables, names: Names) -> Variables:
    """What a part has of a backbone's variables, under its names."""
    return {collection: _renamed(tree, names) for collection, tree in variables.items()}


def apply_part(model: Backbone, names: Names, variables: Variables, x: Array, train: bool) -> tuple[Array, Any]:
    """Run a part, `model`, with variables under its names: what comes out, and running statistics, moved on by `train`.

    What comes in may be images, or the map that another part has made.
    """
    original = take_part(variables, {new: name for name, new in names.items()})
    if not train:
        return model.apply(original, x), variables["batch_stats"]
    y, moved = model.apply(original, x, train=True)
    return y, _renamed(moved["batch_stats"], names)


def _renamed(tree: Mapping[str, Any], names: Names) -> dict[str, Any]:
    return {names[name]: value for name, value in tree.items() if name in names}
