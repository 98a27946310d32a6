"""How long does it take to draw the batches of an epoch of millions of images?

python -m experiments.benchmarks.order
"""

import resource
import time

import numpy as np

from cion_jax.data.sampler import PKSampler
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment


def main(images: int = 4_000_000, identities: int = 250_000, batch: int = 64, instances: int = 4) -> None:
    """Draw every batch of one epoch, and one batch of another.

    Args:
        images: Images with an identity, evenly at random.
        identities: How many identities there are.
        batch: P, identities in a batch.
        instances: K, images of each.
    """
    labels = np.random.default_rng(0).integers(0, identities, images)
    before = _peak()
    began = time.perf_counter()
    sampler = PKSampler(labels, batch, instances)
    drawn = sum(sampler.batch(0, number).size for number in range(sampler.batches))
    whole = time.perf_counter() - began
    began = time.perf_counter()
    sampler.batch(1, sampler.batches // 2)
    print(environment("numpy"))
    print(f"{images:,} images of {identities:,} identities in batches of {batch} x {instances}:")
    print(f"a whole epoch ({sampler.batches:,} batches, {drawn:,} places) from labels: {whole:.1f} s")
    print(f"the middle batch of another epoch: {1000 * (time.perf_counter() - began):.0f} ms")
    print(f"peak memory over that of the labels: {(_peak() - before) / 2**20:.2f} GiB")


def _peak() -> int:
    """KiB of the process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    command(main)
