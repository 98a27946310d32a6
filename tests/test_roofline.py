"""The bytes that a compiled program reads and writes, as the roofline counts them."""

import jax
import jax.numpy as jnp
import pytest

from cion_jax.programs.cost import traffic


def test_bytes_are_those_of_every_turn_of_a_loop() -> None:
    """A loop that cuts rows out of a table, and makes rows of another, touches each of the tables once."""
    table, weights = jnp.ones((64, 1024)), jnp.ones((1024, 1024))

    def loop(table: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.map(lambda number: jnp.tanh(table[number] @ weights), jnp.arange(64))

    program = jax.jit(loop).lower(table, weights).compile()
    least = 2 * table.nbytes + 64 * weights.nbytes
    assert least <= traffic(program.as_text() or "") < 1.02 * least
    straight = jax.jit(lambda table, weights: jnp.tanh(table @ weights)).lower(table, weights).compile()
    counted = (straight.cost_analysis() or {})["bytes accessed"]
    assert traffic(straight.as_text() or "") == pytest.approx(counted, rel=1e-3)
