"""Does it help to know who is who? The three levels of pre-training on a drawn world, scored on people held out.

python -m experiments.levels

For each seed a world is drawn and a small backbone is trained from the same weights with the same budget: at the
instance level every image is a person, at the tracklet level a tracker's raw tracklets are, mistakes included, and at
the identity level the truth stands in for denoised labels. Scored is the teacher, on queries of people who were never
in training.

Beside them stands the backbone with random weights, twice: as it begins, and after an epoch with a learning rate of 0,
in which nothing but the statistics of its norms is learned. The difference is large. Maps that are not normalised keep
the mean colours of an image, which is what tells drawn people apart; of trained features only the second is the origin.
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
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.embed import features
from cion_jax.evaluate.retrieval import Scores, scores, search
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.pretrain.loop import pretrain
from cion_jax.pretrain.plan import model_of
from cion_jax.pretrain.state import fresh, teacher_of
from cion_jax.torch_io.weights import load
from experiments.timing import environment
from tfrecords_tools.world import build, truth

RANDOM, MEASURED = "random weights", "random weights, statistics measured"
LEVELS: tuple[Literal["instance", "tracklet", "identity"], ...] = ("instance", "tracklet", "identity")

#: Small enough for two cores: crops have an eighth of the usual height and width, and 24 images make a step. A blur
#: of the usual pixels would leave nothing of them, and with so few steps the teacher must be sharper to get anywhere.
SETTINGS = Pretraining(
    backbone="resnet18",
    batch=24,
    instances=(4,),
    stages=(0,),
    image_size=(64, 32),
    crops=Crops(global_size=(32, 16), local_crops=0, blur_radius=(0.0125, 0.25)),
    head=Head(prototypes=1024, hidden=256, bottleneck=64, block=1024, teacher_temperature=0.02),
    optimization=Optimization(learning_rate=3.2e-3, warmup=0.5, frozen=0, momentum=0.99),
    precision="float32",
)


def main(seeds: int = 3, epochs: int = 5) -> None:
    """Train and score; a quarter of an hour for each seed.

    Args:
        seeds: Worlds and initial weights, numbered from 0.
        epochs: Passes over the training images, for each level.
    """
    table: dict[str, list[Scores]] = {name: [] for name in (RANDOM, MEASURED, *LEVELS)}
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
    begin, _ = teacher_of(fresh(model, settings.head, settings.optimization, jax.random.key(settings.seed)))
    found = {RANDOM: score(folder / "world", model, begin)}
    still = replace(settings.optimization, learning_rate=0, learning_rate_end=0)
    plans = {MEASURED: replace(settings, level="instance", epochs=1, optimization=still)}
    for level in LEVELS:
        labels = folder / "truth.npz" if level == "identity" else None
        plans[level] = replace(settings, level=level, labels=labels)
    for name, plan in plans.items():
        pretrain(plan, folder / "world", folder / name)
        weights = load(folder / name / "teacher.safetensors")
        found[name] = score(folder / "world", weights.backbone, weights.variables)
    return found


def score(world: Path, model: Backbone, variables: Variables) -> Scores:
    """Retrieval of held-out people with a backbone's features of whole images."""
    query, gallery = Records(world, "query"), Records(world, "gallery")
    asked, searched = (features(model, variables, split, image_size=model.image_size) for split in (query, gallery))
    return scores(search(cosine(asked, searched), query.index, gallery.index))


if __name__ == "__main__":
    tyro.cli(main)
