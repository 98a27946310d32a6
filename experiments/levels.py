"""Does it help to know who is who? The three levels of pre-training on a drawn world, scored on people held out.

python -m experiments.levels

For each seed a world is drawn and a small backbone is trained from the same weights with the same budget: at the
instance level every image is a person, at the tracklet level a tracker's raw tracklets are, mistakes included, and at
the identity level the truth stands in for denoised labels. Scored is the teacher, on queries of people who were never
in training, beside the same backbone with random weights.

It does not come out yet: within the few hundred steps that two cores allow, the teacher's targets grow uniform (entropy
near log of the prototypes) and all levels stay below random weights, in the trials made so far at the identity level.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax
import tyro

from cion_jax.config import Crops, Head, Optimization, Pretraining, World, Writing
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.evaluate.embed import features
from cion_jax.evaluate.retrieval import Scores, mean_average_precision
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.pretrain.loop import pretrain
from cion_jax.pretrain.plan import model_of
from cion_jax.torch_io.weights import load
from experiments.timing import environment
from tfrecords_tools.world import build, truth

LEVELS: tuple[Literal["instance", "tracklet", "identity"], ...] = ("instance", "tracklet", "identity")

#: Small enough for two cores: a 64x32 crop has a sixteenth of the usual pixels, and 24 images make a step.
SETTINGS = Pretraining(
    backbone="resnet18",
    epochs=2,
    batch=24,
    instances=(4,),
    stages=(0,),
    image_size=(128, 64),
    crops=Crops(global_size=(64, 32), local_size=(32, 16), local_crops=2),
    head=Head(prototypes=1024, hidden=256, bottleneck=64, block=1024),
    optimization=Optimization(learning_rate=5e-3, warmup=0.5, frozen=0, momentum=0.99),
    precision="float32",
)


def main(seeds: int = 3, epochs: int = 2) -> None:
    """Train and score; some minutes a seed.

    Args:
        seeds: Worlds and initial weights, numbered from 0.
        epochs: Passes over the training images, for each level.
    """
    table: dict[str, list[Scores]] = {name: [] for name in ("random weights", *LEVELS)}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            for name, scores in one_seed(Path(folder), replace(SETTINGS, seed=seed, epochs=epochs)).items():
                table[name].append(scores)
                print(f"seed {seed}, {name}: mAP {100 * scores.mean_average_precision:.1f}", flush=True)
    print(environment("jax", "numpy"))
    print("\n| | mAP, mean (each seed) | rank 1, mean |\n|---|---|---|")
    for name, found in table.items():
        values = [100 * scores.mean_average_precision for scores in found]
        first = statistics.mean(100 * scores.rank_1 for scores in found)
        print(f"| {name} | {statistics.mean(values):.1f} ({', '.join(f'{v:.1f}' for v in values)}) | {first:.1f} |")


def one_seed(folder: Path, settings: Pretraining) -> dict[str, Scores]:
    """Scores of random weights and of each level, in a world of their own."""
    sources = build(World(seed=settings.seed))
    splits = write_dataset(folder / "world", sources, Writing())
    write_labelling(folder / "truth.npz", truth(sources["train"]), splits["train"].fingerprint, {})
    model = model_of(settings)
    found = {"random weights": score(folder / "world", model, model.init(jax.random.key(settings.seed)))}
    for level in LEVELS:
        labels = folder / "truth.npz" if level == "identity" else None
        pretrain(replace(settings, level=level, labels=labels), folder / "world", folder / level)
        weights = load(folder / level / "teacher.safetensors")
        found[level] = score(folder / "world", weights.backbone, weights.variables)
    return found


def score(world: Path, model: Backbone, variables: Variables) -> Scores:
    """Retrieval of held-out people with a backbone's features of whole images."""
    query, gallery = Records(world, "query"), Records(world, "gallery")
    asked, searched = (features(model, variables, split, image_size=model.image_size) for split in (query, gallery))
    return mean_average_precision(asked, searched, query.index, gallery.index)


if __name__ == "__main__":
    tyro.cli(main)
