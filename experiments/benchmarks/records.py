"""How fast are images read? Ours in P x K order, tf.data front to back, and Pillow from single files.

pip install -e '.[tensorflow]' && python -m experiments.benchmarks.records
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from cion_jax.config import Reading, World, Writing
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler
from cion_jax.data.writer import write_dataset
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, rates, table
from tfrecords_tools.world import build

_BATCH = 64
_CALLS = 4 * len(os.sched_getaffinity(0))  # the fastest of the fixed numbers that were tried on two cores


def main(images: int = 6000, rounds: int = 7) -> None:
    """Draw 256x128 images, write them as records and as files, and read them in three ways in turn.

    Args:
        images: About how many images to draw.
        rounds: How often each way reads all of them; the printed figures are medians.
    """
    world = World(
        identities=images // 48, videos=images // 200, height=256, width=128, test_identities=2, distractors=0
    )
    with tempfile.TemporaryDirectory() as folder:
        train = {"train": build(world)["train"]}
        write_dataset(Path(folder) / "records", train, Writing(images_per_shard=1000))
        records = Records(Path(folder) / "records")
        files = _as_files(records, Path(folder))
        print(environment("numpy", "grain", "simplejpeg", "pillow", "tensorflow"))
        size = records.card.bytes / len(records) / 1000
        print(f"{len(records):,} JPEG images of 256x128, {size:.1f} kB each, in the page cache, batches of {_BATCH}\n")
        contestants = {
            "records, P x K order, every checksum checked": _ours(records),
            "tf.data, sequential, AUTOTUNE": _tf_data(records),
            f"tf.data, sequential, {_CALLS} parallel calls": _tf_data(records, _CALLS),
            "Pillow, shuffled files": _pillow(files),
        }
        print(table(rates(contestants, rounds), "images/s"))


def _ours(records: Records) -> Callable[[], int]:
    """Tracklets as identities, as at the start of a pre-training; one epoch, with its repetitions counted as images."""
    sampler = PKSampler(records.index["tracklet"], _BATCH // 4, 4)
    return lambda: sum(len(batch["image"]) for batch in host_batches(records, sampler, Reading(), epochs=1))


def _tf_data(records: Records, calls: int | None = None) -> Callable[[], int]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    def decode(payload: "tf.Tensor") -> "tf.Tensor":
        example = tf.io.parse_single_example(payload, {"image": tf.io.FixedLenFeature([], tf.string)})
        return tf.io.decode_jpeg(example["image"], channels=3)

    shards = [str(records.shard_path(shard)) for shard in range(len(records.card.shards))]
    decoded = tf.data.TFRecordDataset(shards).map(decode, calls or tf.data.AUTOTUNE)
    data = decoded.batch(_BATCH).prefetch(tf.data.AUTOTUNE)
    return lambda: sum(len(batch) for batch in data.as_numpy_iterator())


def _pillow(files: list[Path]) -> Callable[[], int]:
    def decode(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def batches(order: Iterator[Path]) -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            decoded = pool.map(decode, order)
            while batch := list(islice(decoded, _BATCH)):
                yield np.stack(batch)

    def read() -> int:
        order = np.random.default_rng(0).permutation(len(files))
        return sum(len(batch) for batch in batches(files[number] for number in order))

    return read


def _as_files(records: Records, folder: Path) -> list[Path]:
    paths = [folder / f"{number:06d}.jpg" for number in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        path.write_bytes(record.image)
    return paths


if __name__ == "__main__":
    command(main)
