"""From images to features: a unit vector for each image, computed on all devices of this process."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cion_jax.config import Precision
from cion_jax.data.images import ImageError, decode_into
from cion_jax.data.pixels import normalise, to_float
from cion_jax.errors import UserError
from cion_jax.hosts import all_gather, local_part
from cion_jax.models.network import Network
from cion_jax.models.precision import dtype_of, products_in
from cion_jax.models.zoo import Variables
from cion_jax.terminal import Progress, no_progress

#: Each thread decodes a batch of its own, and as many wait in memory.
_MOST_THREADS = 16


class Images(Protocol):
    """Images that any thread can read by number, as `data.records.Records`."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def pixels_into(self, out: np.ndarray, number: SupportsIndex) -> None:
        """Write an image into a uint8 array, resized to its height and width."""
        ...

    def where(self, number: SupportsIndex) -> str:
        """The place of an image, for messages."""
        ...


class ImageFiles:
    """JPEG and PNG files by their paths below a folder."""

    def __init__(self, folder: Path, names: list[str]):
        self.folder = folder
        self.names = names

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


class ImageFolder(ImageFiles):
    """The JPEG and PNG files anywhere below a folder, in the order of their paths, without hidden ones."""

    def __init__(self, folder: Path):
        super().__init__(folder, sorted(_images_below(folder)))
        if not self.names:
            raise UserError(f"{folder}: no .jpg, .jpeg or .png below this folder; name one that holds images")


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

#: Scale and shift of the channels of each image, both float32 (N, 3): a value x from 0 to 1 becomes
#: clip(x * scale + shift, 0, 1).
Colours = tuple[np.ndarray, np.ndarray]


def embedder(model: Network, variables: Variables, *, flip: bool = False, precision: Precision = "float32") -> Embedder:
    """The function from pixels, uint8 (N, H, W, 3), to unit vectors, float32 (N, width).

    N is a multiple of the number of local devices, which share the images. The call returns before the work is done,
    and the vectors stay on the devices. Two further arguments change the colours of the images first: the scale and
    the shift of `Colours`.

    Args:
        model: The network.
        variables: Its variables; every local device gets a copy.
        flip: Add the features of the mirror image, before the vector is divided by its length.
        precision: What the network computes in, and how exactly it multiplies.
    """
    mesh = jax.make_mesh((jax.local_device_count(),), ("data",), (AxisType.Auto,), devices=jax.local_devices())
    variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    by_image = NamedSharding(mesh, PartitionSpec("data"))

    def run(pixels: np.ndarray, *colours: np.ndarray) -> Array:
        return _forward(model, variables, *jax.device_put((pixels, colours), by_image), flip, precision)

    return run


def unit_features(
    model: Network,
    variables: Variables,
    pixels: Array,
    colours: tuple[Array, ...] = (),
    flip: bool = False,
    precision: Precision = "float32",
) -> Array:
    """Unit vectors, float32 (N, width), of pixels, uint8 (N, H, W, 3); `embedder` explains the arguments."""
    values = to_float(pixels)
    if colours:
        scale, shift = (each[:, None, None] for each in colours)
        values = jnp.clip(values * scale + shift, 0, 1)
    images = normalise(values, model.mean, model.std).astype(dtype_of(precision))
    with products_in(precision):
        features_NxD = model.apply(variables, images).astype(jnp.float32)
        if flip:
            features_NxD += model.apply(variables, images[:, :, ::-1]).astype(jnp.float32)
    return features_NxD / jnp.linalg.norm(features_NxD, axis=1, keepdims=True)


#: One program for all calls with the same network and shapes: a trainer that embeds again compiles nothing.
_forward = jax.jit(unit_features, static_argnums=(0, 4, 5))


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

    Every span is padded to the same number of rows, so that one program serves them all. Threads decode some spans
    ahead, and the next span travels to the devices while one is computed.

    Args:
        run: What `embedder` returned.
        images: Where the pixels come from.
        spans: Consecutive numbers of images, at most `batch` in each, as `batched` makes them.
        image_size: Height and width to which images are resized.
        batch: Images that the devices take together.
        colours: How to change the colours of each image, with a row for each of `images`, as `colours.matched`
            returns it.
    """
    rows = -(-batch // jax.local_device_count()) * jax.local_device_count()

    def decode(span: range) -> tuple[np.ndarray, ...]:
        pixels = np.zeros((rows, *image_size, 3), np.uint8)
        for row, number in zip(pixels, span, strict=False):
            images.pixels_into(row, number)
        return pixels, *(_padded(each[span.start : span.stop], rows) for each in colours or ())

    batches = in_threads(decode, spans)
    computing = [run(*next(batches))] if spans else []
    for number, span in enumerate(spans, 1):
        computing += [run(*next(batches))] if number < len(spans) else []  # before the wait for the one in front
        features = np.asarray(computing.pop(0))[: len(span)]
        broken = not_unit(features)
        if len(broken):
            raise UserError(
                f"{images.where(span[broken[0]])}: the network gives no finite feature for it; compute in float32, and "
                "if that does not help take other weights"
            )
        yield features


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    """An array with rows of zeros behind its own, `rows` in all."""
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])


def in_threads(work: Callable[[range], Any], spans: Sequence[range]) -> Iterator[Any]:
    """What `work` returns for each span of image numbers, in order; threads work some spans ahead."""
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.source(spans).map(work).to_iter_dataset(ahead))


def batched(numbers: range, most: int) -> list[range]:
    """The numbers in consecutive spans of at most `most`."""
    return [numbers[start : start + most] for start in range(0, len(numbers), most)]


def not_unit(features: np.ndarray) -> np.ndarray:
    """The numbers of the rows that are not unit vectors: those of another length, and those with NaN or infinity."""
    squares = np.einsum("nd,nd->n", features, features)
    return np.flatnonzero(~(np.abs(squares - 1) < 1e-3))


def embed_all(
    model: Network,
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
    """The features of all images, float32 (N, width), in memory; `embedder` and `embed` explain the arguments.

    Hosts share the images. `progress` is called with the number of further images that this host has embedded.
    """
    local = local_part(range(len(images)))
    run = embedder(model, variables, flip=flip, precision=precision)
    spans = batched(local, batch)
    features = np.empty((len(local), model.width(image_size)), np.float32)
    parts = embed(run, images, spans, image_size=image_size, batch=batch, colours=colours)
    for span, rows in zip(spans, parts, strict=True):
        features[span.start - local.start : span.stop - local.start] = rows
        progress(len(span))
    return all_gather(features)
