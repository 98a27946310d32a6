"""Does pre-training help the task? Drawn worlds of `cion demo`, fine-tuned on few labelled people, or on none.

    cion demo cion-demo --seed 901 --seeds 3 && pip install -e '.[adapt]'
    python -m experiments.finetuning cion-demo/seed-901 cion-demo/seed-902 cion-demo/seed-903

    cion demo cion-demo --seed 900 && python -m experiments.finetuning --choose cion-demo/seed-900

With labels: `bnneck` from fresh weights and from each level's, with the same people, steps and order. Without:
`cion adapt` from the identity level's, with DBSCAN's clusters and with those of denoising. Scored are people who were
never in training, by mAP in percent; means and standard deviations over the worlds, and differences world by world with
their 95 % intervals. The settings were chosen in the world of seed 900, whose people are in none of these tables; the
second command tries those without labels there again.
"""

from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import jax
import numpy as np
from scipy.stats import t
from tyro.conf import Positional

from cion_jax.config import (
    Augmentation,
    ClusterContrast,
    ClusterContrastOptimization,
    Clustering,
    Finetuning,
)
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.demo.plan import DEFAULT
from cion_jax.errors import UserError
from cion_jax.evaluate.clustering_metrics import agreement
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.query_gallery import embed_query_gallery
from cion_jax.evaluate.retrieval import scores, search
from cion_jax.run.finetuning import finetune, finetuning
from cion_jax.run.relabel import labels_path
from cion_jax.run.run_dir import FINETUNED, TEACHER
from cion_jax.weights.file import Weights, load
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment

#: What one may begin with: the runs of the demo in a world, and None for fresh weights.
STARTS: dict[str, str | None] = {
    "random start": None,
    "instance level": "instance",
    "tracklet level": "tracklet",
    "identity level": "identity",
}
LABELLED = DEFAULT.finetuning
#: As published, but for what so small pictures, networks and worlds ask for.
PUBLISHED = ClusterContrast(
    backbone=DEFAULT.training.backbone,
    epochs=8,
    epoch_steps=40,
    batch=48,
    instances=4,
    image_size=(64, 32),
    # The size of pre-training, so that the first clusters are those of its features; it has nothing to spare.
    augmentation=Augmentation(size=(32, 16), pad=2, erase=0.0),
    pixel_scale="augmentation",
    keep=1,
    keep_every=0,
    optimization=ClusterContrastOptimization(drops=(5,)),
)
UNLABELLED = replace(
    PUBLISHED,
    pixel_scale="weights",
    exponent=1.0,
    temperature=0.1,
    memory_momentum=0.8,
    optimization=ClusterContrastOptimization(learning_rate=1e-3, drops=(5,)),
)
CLUSTERINGS = {"DBSCAN": Clustering(eps=0.5), "denoising": Clustering(by="denoise")}
#: What `--choose` tries, from what is published to UNLABELLED: each with the changes of those before.
CHOICES = {
    "as published": PUBLISHED,
    "pixels by the scale of the weights": replace(PUBLISHED, pixel_scale="weights"),
    "and an exponent of 1 at the start, a learning rate of 1e-3": replace(
        UNLABELLED, temperature=0.05, memory_momentum=0.2
    ),
    "and a temperature of 0.1, a memory of which 0.8 stays": UNLABELLED,
}


def main(worlds: Positional[tuple[Path, ...]], choose: bool = False) -> None:
    """Fine-tune in worlds that `cion demo` has left, and print tables. What is done already is not done again.

    Args:
        worlds: Folders such as cion-demo/seed-901.
        choose: Try settings of adaptation instead, in a world that is for nothing else.
    """
    for world in worlds:
        if not (world / "identity" / TEACHER).exists():
            raise UserError(
                f"{world}: not a finished world of `cion demo`; name its folders such as cion-demo/seed-901"
            )
    print(environment("jax", "numpy", "scikit-learn"), end="\n\n")
    if choose:
        _choose(worlds)
    else:
        _with_labels(worlds)
        _without_labels(worlds)


def _with_labels(worlds: tuple[Path, ...]) -> None:
    print("| fine-tuned with labels of few people, from | mAP before | mAP after |\n|---|---|---|", flush=True)
    labelled = {}
    for name, run in STARTS.items():
        before = [_map(load(world / run / TEACHER), world) if run else float("nan") for world in worlds]
        labelled[name] = [_finetuned(world, f"bnneck-{run}", _with_truth(world, run)) for world in worlds]
        print(f"| {name} | {_spread(before) if run else ''} | {_spread(labelled[name])} |", flush=True)
    print()
    _print_differences(labelled, "identity level", ["tracklet level", "instance level", "random start"])
    print()


def _without_labels(worlds: tuple[Path, ...]) -> None:
    print("| adapted without labels | mAP | F1 of the last clusters |\n|---|---|---|", flush=True)
    plain = [_map(load(_teacher(world)), world) for world in worlds]
    adapted = {"identity level, as it is": plain}
    print(f"| identity level, as it is | {_spread(plain)} | |", flush=True)
    for clusters in CLUSTERINGS:
        name = f"identity level, {clusters}"
        adapted[name], f1 = _adapted(worlds, f"adapt-{clusters}", clusters, UNLABELLED)
        print(f"| {name} | {_spread(adapted[name])} | {_spread(f1)} |", flush=True)
    print()
    _print_differences(adapted, "identity level, denoising", ["identity level, DBSCAN", "identity level, as it is"])
    _print_differences(adapted, "identity level, DBSCAN", ["identity level, as it is"])


def _choose(worlds: tuple[Path, ...]) -> None:
    """mAP by settings, before the first step and after the last, and the F1 of the last clusters."""
    print(f"identity level, as it is: mAP {_spread([_map(load(_teacher(world)), world) for world in worlds])}\n")
    columns = [f"{clusters}: mAP | F1 of its last clusters" for clusters in CLUSTERINGS]
    print(f"| adapted | mAP at the start | {' | '.join(columns)} |\n|---|---|---|---|---|---|", flush=True)
    for number, (name, settings) in enumerate(CHOICES.items()):
        cells = [[_at_the_start(world, settings) for world in worlds]]
        for clusters in CLUSTERINGS:
            cells += _adapted(worlds, f"choose-{clusters}-{number}", clusters, settings)
        print(f"| {name} | {' | '.join(map(_spread, cells))} |", flush=True)


def _at_the_start(world: Path, settings: ClusterContrast) -> float:
    method = finetuning(replace(settings, weights=_teacher(world)), world / "world")
    return _map(Weights(method.model, method.model.begin(jax.random.key(0), method.start)), world)


def _adapted(
    worlds: tuple[Path, ...], name: str, clusters: str, settings: ClusterContrast
) -> tuple[list[float], list[float]]:
    """mAP, and the F1 of the last clusters, in percent, of a run in each world."""
    settings = replace(settings, clustering=CLUSTERINGS[clusters])
    after = [_finetuned(world, name, replace(settings, weights=_teacher(world))) for world in worlds]
    return after, [100 * _label_f1(world, name) for world in worlds]


def _teacher(world: Path) -> Path:
    return world / "identity" / TEACHER


def _with_truth(world: Path, run: str | None) -> Finetuning:
    """The settings with labels, in a world, from a run's weights."""
    weights = world / run / TEACHER if run else None
    return replace(LABELLED, weights=weights, labels=world / "world" / "truth.npz")


def _finetuned(world: Path, name: str, settings: Finetuning) -> float:
    """mAP in percent of a run that is finished, or finished now."""
    out = world / "finetuned" / name
    if not finetune(settings, world / "world", out):
        raise UserError(f"{out}: stopped with a checkpoint; repeat the command to go on")
    return _map(load(out / FINETUNED), world)


def _map(weights: Weights, world: Path) -> float:
    network = weights.network
    pair = embed_query_gallery(network, weights.variables, world / "world", image_size=network.image_size)
    results = search(cosine(pair.query, pair.gallery), pair.query_labels, pair.gallery_labels)
    return 100 * scores(results).mean_average_precision


def _label_f1(world: Path, name: str) -> float:
    records = Records(world / "world")
    made = labels_path(world / "finetuned" / name, UNLABELLED.epochs - 1)
    paths = made, world / "world" / "truth.npz"
    return agreement(*(read_labelling(path, records.card.fingerprint, len(records)) for path in paths)).f1


def _print_differences(values: dict[str, list[float]], one: str, others: list[str]) -> None:
    for other in others:
        differences = np.subtract(values[one], values[other])
        if len(differences) > 1:
            half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
            interval = f" [{differences.mean() - half:+.1f}, {differences.mean() + half:+.1f}]"
        else:
            interval = ""
        print(f"- {one} - {other}: {differences.mean():+.1f} mAP{interval}", flush=True)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    command(main)
