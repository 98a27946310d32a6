"""What our own file says of its weights, beside the numbers: how the network is fed, and where the weights come from.

backbone, image_size, fused | method, feature      which network it is, as far as it must be known to be made again
mean, std, colours, resize, width, neck            how images go in, and what comes out
data, licence                                      the fingerprint of the training data, and terms; where they are known

Files from before some of these were written are read as they were.
"""

import re
from collections.abc import Mapping
from functools import cache

import jax

from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.finetune.network import Finetuned
from cion_jax.models.network import Colour, Network
from cion_jax.models.zoo import Backbone

#: What may be known of where weights come from, and what it looks like: it is printed, and sent to others.
_ORIGIN = {"data": r"[0-9a-f]{8,128}", "licence": r"[a-z0-9][a-z0-9.+-]{0,63}"}


def card(network: Network, origin: Mapping[str, str]) -> dict[str, str]:
    """All that our own file says of a network and of where its weights come from."""
    result = {
        "backbone": network.name,
        "image_size": "x".join(map(str, network.image_size)),
        "mean": " ".join(map(repr, network.mean)),
        "std": " ".join(map(repr, network.std)),
        "colours": "RGB",
        "resize": network.resize,
        "width": str(_width(network)),
        "neck": f"batch normalisation, the feature is {network.feature} it" if isinstance(network, BNNeck) else "none",
    }
    if isinstance(network, BNNeck):
        result |= {"feature": network.feature}
    if isinstance(network, Finetuned):
        return {**result, "method": network.method, **origin}
    return {**result, "fused": str(isinstance(network, Backbone) and network.is_fused), **origin}


def pixels(noted: Mapping[str, str]) -> tuple[Colour, Colour]:
    """Mean and standard deviation of pixels in what a file says; a KeyError or ValueError where it has none."""
    red, green, blue = map(float, noted["mean"].split())
    by_red, by_green, by_blue = map(float, noted["std"].split())
    return (red, green, blue), (by_red, by_green, by_blue)


def origin_of(noted: Mapping[str, str]) -> dict[str, str]:
    """Where weights come from, in what a file says."""
    return {name: checked(name, noted[name]) for name in _ORIGIN if name in noted}


def checked(name: str, text: str) -> str:
    """What is said of an origin, if it looks like that."""
    if not re.fullmatch(_ORIGIN[name], text):
        remedy = "name a licence as SPDX and model hubs do, in small letters: apache-2.0, cc-by-nc-4.0, other"
        raise UserError(f"{name} is {text[:80]!a}; {remedy if name == 'licence' else 'a fingerprint is hexadecimal'}")
    return text


@cache
def _width(network: Network) -> int:
    with jax.transfer_guard_host_to_device("allow"):  # tracing makes constants, whatever a training allows its steps
        return network.width(network.image_size)
