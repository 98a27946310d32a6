"""Draws the figures of docs/how-it-works.md.

python -m experiments.figures
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle
from tyro.conf import Positional

from cion_jax.config import Denoising
from cion_jax.data.sampler import PKSampler
from cion_jax.denoise.denoise import Denoised, denoise
from cion_jax.evaluate.clustering_metrics import agreement
from experiments.benchmarks.command import command
from experiments.feature_world import FeatureWorld, draw

#: Seen on white and on black.
GREY, BLUE, ORANGE, GREEN, PURPLE, RED, CYAN = "#808890 #3b7dd8 #e08214 #2ca25f #9467bd #d6455d #17a2b8".split()  # noqa: SIM905
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, CYAN)


def main(out: Positional[Path] = Path(__file__).parents[1] / "docs" / "figures") -> None:
    """Draw all figures as SVG into a folder."""
    for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"):
        plt.rcParams[name] = GREY
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cion", "font.size": 11})
    figures: dict[str, tuple[tuple[float, float], Callable[[Axes], None]]] = {
        "sampler": ((7.5, 3.2), sampler),
        "loss": ((7.5, 4.4), loss),
        "linking": ((7.5, 3.4), linking),
        "levels": ((7.5, 3.2), levels),
    }
    for name, (size, fill) in figures.items():
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        fill(axes)
        figure.savefig(out / f"{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
        print(out / f"{name}.svg")


def sampler(axes: Axes) -> None:
    """One epoch: a row for each batch, a colour for each identity, K images side by side."""
    sizes = (3, 9, 4, 6, 2, 11)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    drawn = PKSampler(labels, identities=3, instances=4)
    for number in range(drawn.batches):
        for group, images in enumerate(drawn.batch(0, number)):
            for place, image in enumerate(images):
                left = 4.6 * group + place
                axes.add_patch(Rectangle((left, -number), 0.9, 0.7, facecolor=COLOURS[labels[image]], alpha=0.85))
                axes.text(left + 0.45, 0.35 - number, str(image), ha="center", va="center", color="white", fontsize=9)
        axes.text(-0.4, 0.35 - number, f"batch {number}", ha="right", va="center")
    for group in range(3):
        axes.text(4.6 * group + 1.95, 1.0, "an identity, K = 4 images", ha="center")
    axes.set(xlim=(-2.4, 13.3), ylim=(-drawn.batches + 0.7, 1.4))
    axes.axis("off")


def loss(axes: Axes) -> None:
    """Views of three images of an identity; what one of the teacher's views teaches."""
    views = ("global 1", "global 2", "local 1", "local 2", "local 3")
    for row in range(3):
        axes.text(-0.1, 2.3 - row, f"image {row + 1}", ha="right", va="center")
        for column, view in enumerate(views):
            own = row == 0 and column == 0
            small = column > 1
            size = 0.36 if small else 0.55
            box = Rectangle(
                (column + 2.2 - size / 2, 2.3 - row - size / 2), size, size, facecolor=BLUE, alpha=0.25 if own else 0.75
            )
            axes.add_patch(box)
            if row == 0:
                axes.text(column + 2.2, 2.85, view, ha="center", fontsize=9)
            if not own and (row or column):
                curve = FancyArrowPatch(
                    (0.75, 2.3), (column + 2.2 - size / 2, 2.3 - row), arrowstyle="-|>", mutation_scale=9,
                    color=ORANGE if row == 0 else GREEN, alpha=0.7, connectionstyle="arc3,rad=-0.06", linewidth=1.1,
                )  # fmt: skip
                axes.add_patch(curve)
    axes.add_patch(Rectangle((0.2, 2.02), 0.55, 0.55, facecolor=ORANGE))
    axes.text(0.47, 2.85, "teacher,\nglobal 1", ha="center", va="center", fontsize=9)
    axes.text(4.2, 3.25, "student", ha="center")
    axes.text(
        -1.2, -0.35, "orange: the other views of the same image\ngreen: the views of other images of the same person"
    )
    axes.set(xlim=(-1.3, 6.6), ylim=(-0.6, 3.5))
    axes.axis("off")


def linking(axes: Axes) -> None:
    """How many pairs of tracklets are near, how many would be by chance, and the tau that follows."""
    evidence = _denoised(3).evidence
    assert evidence is not None
    axes.plot(evidence.steps, evidence.near, color=BLUE, label="pairs of tracklets nearer than this")
    axes.plot(
        evidence.steps, evidence.by_chance, color=ORANGE, label="as many would be by chance, if all were strangers"
    )
    axes.axvline(evidence.tau, color=GREEN, linestyle="--", label="the tau that was found")
    axes.set(xlabel="distance between tracklets", ylabel="pairs", yscale="symlog", ylim=(0, None))
    axes.legend(frameon=False, labelcolor=GREY, loc="center right", bbox_to_anchor=(1, 0.16))
    axes.spines[["top", "right"]].set_visible(False)


def levels(axes: Axes) -> None:
    """How right and how complete labels are after each level."""
    truth = draw(_WORLD).identity
    raw = np.unique(draw(_WORLD).tracklet, return_inverse=True)[1]
    made = {"raw tracklets": raw} | {name: _denoised(level).labels for level, name in enumerate(_LEVELS, 1)}
    scores = np.array([agreement(labels, truth)[:3] for labels in made.values()])
    for offset, (name, colour) in enumerate(zip(("precision", "recall", "F1"), COLOURS, strict=False)):
        axes.bar(np.arange(len(made)) + 0.27 * (offset - 1), scores[:, offset], 0.25, color=colour, label=name)
    axes.set_xticks(range(len(made)), list(made))
    axes.legend(frameon=False, labelcolor=GREY, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    axes.spines[["top", "right"]].set_visible(False)


#: The level is the place in the list.
_LEVELS = ("1: in a tracklet", "2: in a video", "3: across videos")
_WORLD = FeatureWorld(identities=150, videos=20, noise=0.8, bias=0.5, drift=0.5, look_alikes=0.2, switches=0.1, seed=7)


def _denoised(level: int) -> Denoised:
    sample = draw(_WORLD)
    settings = Denoising(levels=level)  # type: ignore[arg-type]
    return denoise(sample.features, sample.video, sample.tracklet, sample.frame, settings)


if __name__ == "__main__":
    command(main)
