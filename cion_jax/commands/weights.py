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
        out: The file to write; its keys are PyTorch's too, and it knows its backbone.
        backbone: What they are weights of; `cion zoo` lists the names.
        part: Which network of a training checkpoint to take.
        allow: Keys that may be missing, unexpected or misshapen, as patterns: fc.* head.*
        adapt: Resample position tables, and change the stem's input channels, where only they do not fit.
        image_size: Height and width that position tables are to be made for.
    """
    from cion_jax.models import zoo
    from cion_jax.weights import file as weights

    if out.suffix != ".safetensors":
        raise UserError(f"{out}: our own weights are safetensors; give OUT that ending")
    model = zoo.backbone(backbone, image_size=image_size)
    found, notes = weights.convert(source, model, part=part, allow=allow, adapt=adapt)
    weights.save(out, found)
    print(*notes, f"{out}: {backbone}{' with its head' if found.head else ''}", sep="\n")


def export(
    weights: Annotated[Positional[Path], arg(metavar="WEIGHTS")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    layout: Literal["plain", "reidzoo"] = "plain",
    fused: bool = False,
) -> None:
    """Write weights for PyTorch: safetensors, or a .pth that torch.load(weights_only=True) reads.

    Plain keys are the backbone's own, for ResNet, GhostNet and VOLO those of torchvision and timm; the layout of
    ReIDZoo has them under `teacher` with the prefixes that its fine-tuning code strips, and the head beside them.

    Args:
        weights: A file that `cion import` wrote.
        out: The file to write, .safetensors or .pth.
        layout: Plain, or as ReIDZoo's fine-tuning code wants it (a .pth).
        fused: The single-branch form of RepViT and FastViT, for inference.
    """
    from cion_jax.weights import foreign as files
    from cion_jax.weights.file import Weights, load, prefixed, reidzoo

    found = load(weights)
    if fused:
        found = Weights(*found.backbone.fused(found.variables), found.head)
    if layout == "reidzoo":
        if out.suffix != ".pth":
            raise UserError(f"{out}: ReIDZoo's code loads .pth files; give OUT that ending")
        files.write_state(out, reidzoo(found), wrap="teacher")
    else:
        files.write_state(out, prefixed(Weights(found.backbone, found.variables), "", ""))
    print(f"{out}: {found.backbone.name}{' (fused)' if found.backbone.is_fused else ''}, {layout} layout")
