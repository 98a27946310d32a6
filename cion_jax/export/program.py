"""What is exported, whatever the format: the function from pixels to unit vectors, and a card that says how to call it.

The function is that of `cion embed`: uint8 pixels go in, normalisation is inside, and unit vectors come out.
"""

from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from cion_jax.finetune.network import Finetuned
from cion_jax.models.network import Network
from cion_jax.models.zoo import Backbone

#: The name of the first axis of what goes in and comes out, which may have any length.
BATCH = "batch"


def traced_for(network: Network, platform: str) -> Network:
    """The same network in the forms of another platform (`cion_jax.models.ops`)."""
    if isinstance(network, Backbone):
        return replace(network, platform=platform)
    assert isinstance(network, Finetuned)
    parts = {field.name: getattr(network, field.name) for field in fields(network)}
    bodies = {name: part for name, part in parts.items() if isinstance(part, Backbone)}
    return replace(network, **{name: replace(body, platform=platform) for name, body in bodies.items()})


def pixels_of(network: Network) -> jax.ShapeDtypeStruct:
    """Shape and type of what goes in, with a batch of any size."""
    (batch,) = export.symbolic_shape(BATCH)
    return jax.ShapeDtypeStruct((batch, *network.image_size, 3), jnp.uint8)


def card(network: Network, fingerprint: str) -> dict[str, Any]:
    """What somebody must know who has the program alone, as JSON; the fingerprint is that of the weights."""
    height, width = network.image_size
    return {
        "network": network.name,
        "fused": isinstance(network, Backbone) and network.is_fused,
        "fine_tuned_by": getattr(network, "method", None),
        "input": {
            "name": "pixels",
            "type": "uint8",
            "shape": [BATCH, height, width, 3],
            "colours": "RGB",
            "resize": f"{network.resize}, antialiased, aspect ratio not kept (Pillow's {network.resize.upper()})",
        },
        "inside": {"rule": "(pixels / 255 - mean) / std", "mean": network.mean, "std": network.std},
        "output": {
            "name": "features",
            "type": "float32",
            "shape": [BATCH, network.width(network.image_size)],
            "rule": "unit vectors; the similarity of two images is their inner product",
        },
        "weights_sha256": fingerprint,
        "jax": jax.__version__,
    }
