"""`cion import` and `cion export`: weights from PyTorch, and to it and others."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cion_jax.commands.sources import file_of
from cion_jax.errors import UserError


def import_(
    source: Annotated[Positional[Path], arg(metavar="SOURCE")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    backbone: str,
    key: str | None = None,
    strip: str | None = None,
    allow: tuple[str, ...] = (),
    adapt: bool = False,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Read weights that PyTorch wrote, check them against a backbone, and write them as a file of ours.

    SOURCE is a safetensors file or what torch.save wrote, with any version of PyTorch: a state_dict, alone or in a
    checkpoint, or what the published fine-tuning saves (MGN of FastReID, TransReID, cluster contrast). Known are the
    names of the backbones' original projects, those of torchvision for ResNets, and those of timm for all families but
    RepViT and ViT, which compute something else there. A classifier is left out, with a line that says so. PyTorch is
    not needed, and nothing that is pickled is run.

    Args:
        source: The file to read.
        out: The file to write, .safetensors; it has PyTorch's keys, and names its backbone.
        backbone: The backbone that the weights are of, or are built on; `cion zoo` lists the names.
        key: Which state_dict of a checkpoint to take: model_ema, or names joined by dots where it lies deeper. By
            default the only one, or that of `teacher`.
        strip: Take only the keys that begin with this, as in module.encoder_q. or backbone. and without it. By default
            prefixes that wrappers give to all keys are taken off (module. model. base. _orig_mod. and such).
        allow: Keys that may be missing, unexpected or misshapen, as patterns: fc.* head.*
        adapt: Resample position tables and change the stem's input channels, if everything else fits.
        image_size: Height and width of the images that it will be given, for which position tables are made. By default
            256x128, or 384x128 for MGN.
    """
    from cion_jax.weights import file as weights

    if out.suffix != ".safetensors":
        raise UserError(f"{out}: our own weights are safetensors; give OUT that ending")
    converted, notes = weights.convert(
        source, backbone, image_size=image_size, key=key, strip=strip, allow=allow, adapt=adapt
    )
    weights.save(out, converted)
    method = getattr(converted.network, "method", None)
    kind = f", fine-tuned by {method}" if method else " with its head" if converted.head else ""
    print(*notes, f"{out}: {backbone}{kind}", sep="\n")


def export(
    weights: Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    format: Literal["pytorch", "stablehlo", "onnx"] = "pytorch",
    layout: Literal["plain", "reidzoo"] = "plain",
    fused: bool = False,
) -> None:
    """Write weights for others: for PyTorch, or with the network around them, as a program that needs none of our code.

    For PyTorch it is safetensors, or a .pth that torch.load(weights_only=True) reads. StableHLO is for jax.export, in
    one file for CPU, CUDA and TPU; ONNX is for onnxruntime and its like. Both take uint8 RGB pixels of any number of
    images, and give the unit vectors of `cion embed`; OUT.json says which size of images, and all else.

    Plain keys are those of torchvision and timm for ResNet, GhostNet and VOLO, and the backbone's own for others; of
    fine-tuned weights those of the published code of their method. The layout of ReIDZoo has a backbone's under
    `teacher`, with the prefixes that its fine-tuning code strips, and the head too.

    Args:
        weights: A run, or a file that `cion import` or a training wrote.
        out: The file to write: .safetensors or .pth, or .stablehlo or .onnx.
        format: PyTorch's weights, or a program with its weights; the programs need cion-jax[stablehlo] or [onnx].
        layout: Plain, or as ReIDZoo's fine-tuning code wants it (a .pth).
        fused: The single-branch form of RepViT and FastViT, for inference.
    """
    from cion_jax.export.file import check_can_write, write_program
    from cion_jax.models.zoo import Backbone
    from cion_jax.weights import foreign as files
    from cion_jax.weights.file import Weights, load, plain, reidzoo

    if format != "pytorch":
        check_can_write(out, format)
        if layout != "plain":
            raise UserError(f"--format {format} has no keys to lay out; leave --layout {layout} out")
    elif out.suffix in (".stablehlo", ".onnx"):
        raise UserError(f"{out}: name a .pth or .safetensors file, or add --format {out.suffix[1:]}")
    weights = file_of(weights)
    loaded = load(weights)
    network = loaded.network
    if not isinstance(network, Backbone) and (fused or layout == "reidzoo"):
        asked = "--fused" if fused else "--layout reidzoo"
        raise UserError(f"{weights}: fine-tuned weights have one form; leave {asked} out")
    if fused and isinstance(network, Backbone):
        loaded = Weights(*network.fused(loaded.variables), loaded.head, origin=loaded.origin)
    named = f"{network.name}{' (fused)' if fused else ''}"
    if format != "pytorch":
        card = write_program(out, format, loaded.network, loaded.variables, weights)
        print(f"{out}: {named} as {format}; {card} says what goes in and comes out")
        return
    if layout == "reidzoo":
        if out.suffix != ".pth":
            raise UserError(f"{out}: ReIDZoo's code loads .pth files; give OUT that ending")
        files.write_state(out, reidzoo(loaded), wrap="teacher")
    else:
        files.write_state(out, plain(loaded))
    print(f"{out}: {named}, {layout} layout")
