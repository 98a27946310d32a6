"""The files that `cion export` writes for others than PyTorch: a program, and its card beside it."""

from hashlib import sha256
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Literal

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from cion_jax.export.program import card
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables

Format = Literal["stablehlo", "onnx"]

#: The package that writes each format, which our own installation may lack.
_WRITERS = {"stablehlo": "flatbuffers", "onnx": "onnx"}


def check_can_write(out: Path, form: Format) -> None:
    """Refuse another ending than that of the format, and a format whose package is not here."""
    if out.suffix != f".{form}":
        raise UserError(f"{out}: --format {form} writes .{form} files; give OUT that ending")
    if find_spec(_WRITERS[form]) is None:
        raise UserError(f"{out}: {_WRITERS[form]} is not installed; pip install 'cion-jax[{form}]'")


def write_program(out: Path, form: Format, network: Network, variables: Variables, weights: Path) -> Path:
    """Write a network with its variables, which were in the file `weights`, and its card; returns the card's path."""
    noted = card(network, sha256(weights.read_bytes()).hexdigest())
    if form == "stablehlo":
        from cion_jax.export.stablehlo import stablehlo

        program = stablehlo(network, variables)
    else:
        from cion_jax.export.onnx.program import onnx_model

        program = onnx_model(network, variables, noted)
    beside = out.with_name(f"{out.name}.json")
    write_atomically(out, lambda path: path.write_bytes(program))
    write_atomically(beside, lambda path: path.write_text(dumps(noted, indent=1) + "\n"))
    return beside
