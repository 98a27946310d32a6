"""A network and its weights as an artefact of `jax.export`: one file for CPUs, GPUs and TPUs, and any batch.

Whoever loads it needs jax, and nothing of ours. Each platform has the forms that are fast there, of one copy of the
weights; XLA keeps those of the platform that it compiles for.
"""

from functools import partial
from importlib.util import find_spec

import jax
from jax import Array, export, lax

from cion_jax.errors import UserError
from cion_jax.evaluate.embed import unit_features
from cion_jax.export.program import pixels_of, traced_for
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(network: Network, variables: Variables) -> bytes:
    """The artefact, for `jax.export.deserialize`: uint8 pixels (N, H, W, 3) to unit vectors, float32 (N, width)."""
    check_installed()
    forms = {platform: partial(unit_features, traced_for(network, platform)) for platform in PLATFORMS}

    def features(pixels: Array) -> Array:
        return lax.platform_dependent(variables, pixels, **forms)

    return bytes(export.export(jax.jit(features), platforms=PLATFORMS)(pixels_of(network)).serialize())


def check_installed() -> None:
    """Refuse where the package is missing with which jax writes its artefacts."""
    if find_spec("flatbuffers") is None:
        raise UserError("jax writes StableHLO with flatbuffers, which is not here; pip install 'cion-jax[stablehlo]'")
