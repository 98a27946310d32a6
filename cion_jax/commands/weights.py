"""`cion import` and `cion export`: weights from and to PyTorch."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cion_jax.errors import UserError


def import_(
    source: Annotated[Positional[Path], arg(metavar="SOURCE")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    backbone: str,
    part: Literal["teacher", "student"] = "teacher",
    allow: tuple[str, ...] = (),
    adapt: bool = False,
    image_size: tuple[int, int] = (256, 128),
) -> None:
    """Read weights that PyTorch wrote, check them against a backbone, and write them as a file of ours.

    SOURCE is a .pth or .safetensors file: a state_dict, a torchvision or timm checkpoint of a family whose keys are
    theirs, or a whole ReIDZoo training checkpoint. PyTorch is not needed, and nothing that is pickled is run.

    Args:
        source: The file to read.
        out: The file to write, .safetensors; it has PyTorch's keys, and names its backbone.
        backbone: The backbone that the weights are of; `cion zoo` lists the names.
        part: Which network of a training checkpoint to take.
        allow: Keys that may be missing, unexpected or misshapen, as patterns: fc.* head.*
        adapt: Resample position tables and change the stem's input channels, if everything else fits.
        image_size: Height and width for which position tables are made.
    """
    from cion_jax.models import zoo
    from cion_jax.weights import file as weights

    if out.suffix != ".safetensors":
        raise UserError(f"{out}: our own weights are safetensors; give OUT that ending")
    model = zoo.backbone(backbone, image_size=image_size)
    converted, notes = weights.convert(source, model, part=part, allow=allow, adapt=adapt)
    weights.save(out, converted)
    print(*notes, f"{out}: {backbone}{' with its head' if converted.head else ''}", sep="\n")


def export(
    weights: Annotated[Positional[Path], arg(metavar="WEIGHTS")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    layout: Literal["plain", "reidzoo"] = "plain",
    fused: bool = False,
) -> None:
    """Write weights for PyTorch: safetensors, or a .pth that torch.load(weights_only=True) reads.

    Plain keys are those of torchvision and timm for ResNet, GhostNet and VOLO, and the backbone's own for others. The
    layout of ReIDZoo has them under `teacher`, with the prefixes that its fine-tuning code strips, and the head too.

    Args:
        weights: A file that `cion import` wrote.
        out: The file to write, .safetensors or .pth.
        layout: Plain, or as ReIDZoo's fine-tuning code wants it (a .pth).
        fused: The single-branch form of RepViT and FastViT, for inference.
    """
    from cion_jax.weights import foreign as files
    from cion_jax.weights.file import Weights, load, prefixed, reidzoo

    loaded = load(weights)
    if fused:
        loaded = Weights(*loaded.backbone.fused(loaded.variables), loaded.head)
    if layout == "reidzoo":
        if out.suffix != ".pth":
            raise UserError(f"{out}: ReIDZoo's code loads .pth files; give OUT that ending")
        files.write_state(out, reidzoo(loaded), wrap="teacher")
    else:
        files.write_state(out, prefixed(Weights(loaded.backbone, loaded.variables), "", ""))
    print(f"{out}: {loaded.backbone.name}{' (fused)' if loaded.backbone.is_fused else ''}, {layout} layout")
