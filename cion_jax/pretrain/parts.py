"""The parts of a batch, which go through a network one after the other."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")


def over_parts(add: Callable[[Carry, Any], tuple[Carry, Any]], begin: Carry, parts: Any) -> tuple[Carry, Any]:
    """What is carried from part to part, and what each gives, stacked along a first axis.

    Args:
        add: From what is carried, and a part with its number, to what is carried on and what the part gives.
        begin: What the first part is given.
        parts: Arrays whose first axis counts the parts.
    """
    count = len(jax.tree.leaves(parts)[0])
    if count > 1:
        return jax.lax.scan(add, begin, (parts, jnp.arange(count)))
    # A loop of one would stay a loop, in which XLA runs convolutions on a CPU many times slower.
    carry, of_part = add(begin, (jax.tree.map(lambda leaf: leaf[0], parts), jnp.array(0)))
    return carry, jax.tree.map(lambda leaf: leaf[None], of_part)
