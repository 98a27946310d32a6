"""How long would the paper's whole job take? On paper: from operations by formula and the devices' data sheets.

python -m experiments.projection

Nothing here is measured. MFU is the share of a device's peak in 16 bits that a training uses; the published five days
on eight V100 are put into the same terms.
"""

import tyro
from tyro.conf import Positional

from cion_jax.pretrain.devices import peak_flops
from cion_jax.pretrain.plan import flops, model_of
from experiments.rows import find

#: What is asked about: a device's kind, and how many.
FLEETS = (("NVIDIA H200", 1), ("NVIDIA H200", 8), ("TPU v5e", 16))
SHARES = (0.2, 0.3, 0.4)
PUBLISHED = ("Tesla V100-SXM2-32GB", 8, 5 * 24.0)


def main(name: Positional[str] = "resnet50_ibn", images: int = 3_900_000, epochs: int = 100) -> None:
    """Print a Markdown table of hours, and the images a second that hosts would have to decode.

    Args:
        name: A row, or a file of settings.
        images: In the training set; each is met once an epoch, or a little more often.
        epochs: Passes over it.
    """
    row = find(name)
    each, met = flops(row, model_of(row)) / row.batch, images * epochs
    print(f"{name}: {each / 1e9:,.0f} GFLOP an image ({2 + row.crops.local_crops} crops)")
    print(f"{images:,} images, {epochs} epochs")
    print("COMPUTED, not measured: hours, and images a second\n")
    print("| MFU | " + " | ".join(f"{count} x {kind}" for kind, count in FLEETS) + " |")
    print("|---|" + "---|" * len(FLEETS))
    for share in SHARES:
        speeds = [count * _peak(kind) * share / each for kind, count in FLEETS]
        cells = [f"{met / speed / 3600:,.1f} h, {speed:,.0f}/s" for speed in speeds]
        print(f"| {share:.0%} | {' | '.join(cells)} |")
    kind, count, hours = PUBLISHED
    used = met * each / (hours * 3600 * count * _peak(kind))
    told = f"{met / hours / 3600:,.0f} images a second, an MFU of {used:.0%}"
    print(f"\nThe published {hours:.0f} hours on {count} x V100 are {told}.")


def _peak(kind: str) -> float:
    peak = peak_flops(kind)
    assert peak is not None, kind
    return peak


if __name__ == "__main__":
    tyro.cli(main)
