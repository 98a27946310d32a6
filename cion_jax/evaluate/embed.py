"""From images to features: a unit vector per image, computed on all devices of this process."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsIndex

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cion_jax.config import MEAN, STD
from cion_jax.data.images import ImageError, decode_into
from cion_jax.errors import UserError
from cion_jax.hosts import all_gather, local_part
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.terminal import Progress, no_progress

Precision = Literal["float32", "bfloat16"]

_MOST_THREADS = 16  # each decodes a batch of its own, and as many wait in memory


class Images(Protocol):
    """Images that can be had by number, from any thread; `data.records.Records` is one."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def pixels_into(self, out: np.ndarray, number: SupportsIndex) -> None:
        """Write an image into a uint8 array, resized to its height and width."""
        ...

    def where(self, number: SupportsIndex) -> str:
        """Where the image stands, for messages."""
        ...


class ImageFolder:
    """The JPEG and PNG files anywhere below a folder, in the order of their paths; hidden ones are left out."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names = sorted(_images_below(folder))
        if not self.names:
            raise UserError(f"{folder}: no .jpg, .jpeg or .png below this folder; name one that holds images")

    def __len__(self) -> int:
        return len(self.names)

    def pixels_into(self, out: np.ndarray, number: SupportsIndex) -> None:
        """Decode an image into an array, resized to its height and width."""
        path = self.folder / self.names[number]
        try:
            decode_into(out, path.read_bytes())
        except ImageError as error:
            raise UserError(f"{path}: {error}; mend or remove it") from None

    def where(self, number: SupportsIndex) -> str:
        """The path of an image."""
        return str(self.folder / self.names[number])


def _images_below(folder: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}; name a folder of images that can be read") from None

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in [Path(place, name) for name in files if not name.startswith(".")]:
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                if not path.is_file():
                    raise UserError(f"{path}: not a file, or a link to nowhere; mend or remove it")
                yield path.relative_to(folder).as_posix()


Embedder = Callable[..., Array]

#: Scale and shift of the channels of each image, both float32 (N, 3): values 0 to 1 become clip(x * scale + shift).
Colours = tuple[np.ndarray, np.ndarray]


def embedder(
    model: Backbone, variables: Variables, *, flip: bool = False, precision: Precision = "float32"
) -> Embedder:
    """The function from pixels, uint8 (N, H, W, 3), to unit vectors, float32 (N, width), that stay on the devices.

    N is a multiple of the number of local devices, which share the images. The call returns before the work is done.
    To change the colours of the images first, give it two arrays more: the scale and the shift of `Colours`.

    Args:
        model: The backbone.
        variables: Its variables; they are copied to every local device.
        flip: Add the features of the mirror image before the length is made 1.
        precision: What the backbone computes in.
    """
    mesh = jax.make_mesh((jax.local_device_count(),), ("data",), (AxisType.Auto,), devices=jax.local_devices())
    everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    variables = jax.device_put(variables, everywhere)

    def run(pixels: np.ndarray, *colours: np.ndarray) -> Array:
        return _forward(model.apply, variables, *jax.device_put((pixels, colours), shared), flip, precision)

    return run


@partial(jax.jit, static_argnums=(0, 4, 5))
def _forward(
    apply: Callable[..., Array],
    variables: Variables,
    pixels: Array,
    colours: tuple[Array, ...],
    flip: bool,
    precision: Precision,
) -> Array:
    """One program for all calls with the same backbone and shapes: a trainer that embeds again compiles nothing."""
    images = pixels.astype(jnp.float32) / 255
    if colours:
        scale, shift = (each[:, None, None] for each in colours)
        images = jnp.clip(images * scale + shift, 0, 1)
    images = (images - jnp.array(MEAN)) / jnp.array(STD)
    images = images.astype(precision)
    features_NxD = apply(variables, images).astype(jnp.float32)
    if flip:
        features_NxD += apply(variables, images[:, :, ::-1]).astype(jnp.float32)
    return features_NxD / jnp.linalg.norm(features_NxD, axis=1, keepdims=True)


def embed(
    run: Embedder,
    images: Images,
    spans: Sequence[range],
    *,
    image_size: tuple[int, int],
    batch: int = 256,
    colours: Colours | None = None,
) -> Iterator[np.ndarray]:
    """The features of each span of image numbers, in order, float32 (len(span), width).

    Every span is filled up to the same number of rows, so that all are one program. Threads decode some spans ahead,
    and the next is on its way to the devices while one is computed.

    Args:
        run: What `embedder` returned.
        images: Where the pixels come from.
        spans: Consecutive numbers of images, at most `batch` at a time, as `cut` makes them.
        image_size: Height and width to which images are resized.
        batch: Images that the devices take together.
        colours: How to change the colours of each image, by its number; `colours.matched` makes it.
    """
    rows = -(-batch // jax.local_device_count()) * jax.local_device_count()

    def decode(span: range) -> tuple[np.ndarray, ...]:
        pixels = np.zeros((rows, *image_size, 3), np.uint8)
        for place, number in zip(pixels, span, strict=False):
            images.pixels_into(place, number)
        return pixels, *(_filled_up(each[span.start : span.stop], rows) for each in colours or ())

    batches = in_threads(decode, spans)
    computing = [run(*next(batches))] if spans else []
    for number, span in enumerate(spans, 1):
        computing += [run(*next(batches))] if number < len(spans) else []
        features = np.asarray(computing.pop(0))[: len(span)]
        broken = not_unit(features)
        if len(broken):
            raise UserError(
                f"{images.where(span[broken[0]])}: the network gives no finite feature for it; compute in float32, and "
                "if that does not help take other weights"
            )
        yield features


def _filled_up(values: np.ndarray, rows: int) -> np.ndarray:
    """An array with rows of zeros behind its own."""
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])


def in_threads(work: Callable[[range], Any], spans: Sequence[range]) -> Iterator[Any]:
    """What `work` returns for each span of image numbers, in order; threads work some spans ahead."""
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.source(spans).map(work).to_iter_dataset(ahead))


def batched(numbers: range, most: int) -> list[range]:
    """Consecutive numbers in spans of at most so many."""
    return [numbers[start : start + most] for start in range(0, len(numbers), most)]


def not_unit(features: np.ndarray) -> np.ndarray:
    """The rows that are no unit vectors: those with a NaN or an infinity, and those of another length."""
    squares = np.einsum("nd,nd->n", features, features)
    return np.flatnonzero(~(np.abs(squares - 1) < 1e-3))


def embed_all(
    model: Backbone,
    variables: Variables,
    images: Images,
    *,
    image_size: tuple[int, int],
    flip: bool = False,
    precision: Precision = "float32",
    batch: int = 256,
    colours: Colours | None = None,
    progress: Progress = no_progress,
) -> np.ndarray:
    """The features of all images, float32 (N, width), in memory; for what they are see `embedder` and `embed`.

    Hosts share the images. `progress` is called with the number of further images that are embedded here.
    """
    mine, run = local_part(range(len(images))), embedder(model, variables, flip=flip, precision=precision)
    spans, first = batched(mine, batch), mine.start
    found = np.empty((len(mine), model.width(image_size)), np.float32)
    parts = embed(run, images, spans, image_size=image_size, batch=batch, colours=colours)
    for span, rows in zip(spans, parts, strict=True):
        found[span.start - first : span.stop - first] = rows
        progress(len(span))
    return all_gather(found)
