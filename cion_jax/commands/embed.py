"""`cion embed`: from weights and images to features."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.commands.sources import absolute, facts_of, file_of, weights_of
from cion_jax.config import Hosts, Precision
from cion_jax.errors import UserError

if TYPE_CHECKING:
    from cion_jax.models.network import Network

_FOR = "Embed nothing: compile for devices that are not there, such as v5e:2x2 or h100:1x1x1, and tell what that takes."


def embed(
    weights: Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS")],
    data: Annotated[Positional[epath.Path], arg(metavar="DATA")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    split: str | None = None,
    flip: bool = False,
    match_colours: bool = False,
    batch: int = 256,
    precision: Precision = "float32",
    image_size: tuple[int, int] | None = None,
    target: Annotated[str | None, arg(name="for", metavar="DEVICES", help=_FOR)] = None,
    hosts: Hosts = Hosts(),
) -> None:
    """Compute a feature for each image, on all devices; the same command finishes a killed run.

    DATA is a folder that `cion data` wrote, or its URL in a store (gs://, s3://), or any folder of JPEG and PNG files.
    OUT gets a folder for each split with the features in shards (unit vectors, .npy) and the labels of their images.

    Args:
        weights: A run of `cion pretrain`, for its teacher, or a file that `cion import` wrote.
        data: The images.
        out: Folder to write.
        split: Embed this split only; without it all of them.
        flip: Add the features of each image's mirror image.
        match_colours: Match the colours of each video to those of its split; this needs videos and tracklets.
        batch: Images that the devices take together.
        precision: What the network computes in: bfloat16, float32, or tensorfloat32, of which GPUs and TPUs round what
            is multiplied. Features are float32.
        image_size: Height and width to which images are resized; without it those that the weights were made for.
        target: Devices that are not there.
        hosts: How processes find each other, which then share the images.
    """
    from cion_jax.evaluate.feature_store import open_images, write_features
    from cion_jax.hosts import is_main, join_job

    if target is not None:
        network = weights_of(weights).network
        print("\n".join(_program(network, image_size or network.image_size, batch, flip, precision, target)))
        return
    asked = {"flip": flip, "match_colours": match_colours, "precision": precision, "image_size": image_size}
    places = {"split": split, "batch": batch, "out": out.absolute()}
    with join_job(hosts, lambda: facts_of("embed", data, file_of(weights), **asked, **places)):
        loaded = weights_of(weights)
        splits = open_images(data, split)
        if match_colours and any(part.names for part in splits.values()):
            _refuse_colours(data)
        card = write_features(
            out,
            splits,
            loaded.network,
            loaded.variables,
            image_size=image_size or loaded.network.image_size,
            flip=flip,
            match_colours=match_colours,
            precision=precision,
            batch=batch,
            made_from={"weights": str(file_of(weights).absolute()), "data": absolute(data)},
        )
        if is_main():
            _say(out, card, [name for name, part in splits.items() if match_colours and not part.has_tracklets()])


def _refuse_colours(data: epath.Path) -> NoReturn:
    raise UserError(
        f"{data}: a folder of images has no videos and tracklets, which --match-colours needs; make a dataset "
        "of it with `cion data import`, or leave --match-colours out"
    )


def _say(out: Path, card: dict[str, Any], unmatched: list[str]) -> None:
    if unmatched:
        print(f"{out}: no tracklets in {' and '.join(unmatched)}: colours there are left as they are")
    counts = ", ".join(f"{part['images']:,} of {name}" for name, part in card["splits"].items())
    print(f"{out}: features, {card['width']} wide: {counts}")


def _program(
    network: "Network", image_size: tuple[int, int], batch: int, flip: bool, precision: Precision, target: str
) -> Iterator[str]:
    """What the program for a batch needs on devices that are not there, line by line."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from cion_jax.evaluate.embed import unit_features
    from cion_jax.export.program import traced_for
    from cion_jax.programs.account import account, described
    from cion_jax.programs.devices import sheet_of
    from cion_jax.programs.target import absent_devices

    devices = absent_devices(target)
    mesh = Mesh(np.array(devices), ("data",))
    rows = -(-batch // len(devices)) * len(devices)
    pixels = jax.ShapeDtypeStruct((rows, *image_size, 3), np.uint8, sharding=NamedSharding(mesh, PartitionSpec("data")))
    whole = NamedSharding(mesh, PartitionSpec())
    variables = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), network.shapes()
    )
    there = traced_for(network, devices[0].platform)
    jitted = jax.jit(unit_features, static_argnums=(0, 4, 5))
    compiled = jitted.lower(there, variables, pixels, (), flip, precision).compile()
    sheet = sheet_of(devices[0].device_kind)
    assert sheet is not None, devices[0].device_kind
    yield f"{network.name}, {rows:,} images on {len(devices):,} x {devices[0].device_kind}, on each device:"
    yield ""
    yield from described(account(compiled, sheet), sheet)
