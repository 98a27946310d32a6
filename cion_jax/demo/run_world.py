"""One drawn world, the trainings in it, and their scores.

OUT/world                                    the drawn world as records, and beside them the truth
OUT/instance, tracklet, identity, truth      the four runs
OUT/finetuned/random, instance, ...          what these become when the labels of few people are known

All runs begin with the same weights and train the same number of steps. The identity level starts from raw tracklets
and makes its labels itself, on the way; the run with the true labels is a ceiling, which real data do not have.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from cion_jax.config import Bnneck, Pretraining, Writing
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.demo.histograms import histograms, whitening
from cion_jax.demo.plan import Plan
from cion_jax.denoise.denoise import Denoised, denoise
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.errors import UserError
from cion_jax.evaluate.clustering_metrics import Agreement, agreement
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.query_gallery import QueryGallery, embed_query_gallery, open_query_gallery
from cion_jax.evaluate.retrieval import QueryResults, Scores, scores, search
from cion_jax.pretrain.state import init_state, teacher_of
from cion_jax.run.finetuning import finetune
from cion_jax.run.pretraining import model_of, pretrain, relabel_epochs
from cion_jax.run.relabel import labels_path, tracked_features
from cion_jax.run.run_dir import FINETUNED, TEACHER
from cion_jax.terminal import progress_bar
from cion_jax.weights.file import Weights, load
from tfrecords_tools import commands as data

Run = Literal["instance", "tracklet", "identity", "truth"]
#: The runs as contestants, in the order in which they are trained.
RUNS: dict[Run, str] = {
    "instance": "instance level",
    "tracklet": "tracklet level",
    "identity": "identity level",
    "truth": "true labels (ceiling)",
}
#: The other contestants.
HISTOGRAMS = "colour histograms"
WHITENED = "histograms, whitened"
RANDOM = "random weights"
#: Contestants that are also fine-tuned, and the runs that they come from.
STARTS: dict[str, Run | None] = {RANDOM: None, **{name: run for run, name in RUNS.items() if run != "truth"}}
#: What is done in a world, in this order.
PARTS = (
    "draw a world of walking people, with a tracker's mistakes, and write it as records",
    "colour histograms and random weights: what is found without any training",
    "train the instance level: every image is a person of its own",
    "train the tracklet level: every raw tracklet is a person",
    "train the identity level: it begins with raw tracklets, and finds out on the way who is who",
    "train with the true labels: the ceiling",
    "fine-tune random weights and those of the levels with the true labels of few people",
    "who is who: labels, held against the truth",
)


class LabelQuality(NamedTuple):
    """How right labels of the training images are."""

    tracked: TrackedFeatures
    """The images as the identity level's final teacher sees them."""
    denoised: Denoised
    """What denoising makes of these features, after all three levels."""
    agreements: dict[str, Agreement]
    """Agreement with the truth of raw tracklets, of the labels after each level, and of the labels that the run made
    and trained with."""


class WorldResults(NamedTuple):
    """The results of one drawn world."""

    folder: Path
    results: dict[str, QueryResults]
    """The results of the queries, by contestant."""
    features: dict[str, QueryGallery]
    """Features of the query and the gallery, by contestant."""
    labels: LabelQuality
    finetuned: dict[str, Scores]
    """Mean scores of those of `STARTS` after fine-tuning."""

    def best(self) -> Run:
        """The run with the highest mAP, without the ceiling: nobody has true labels."""
        names: list[Run] = [run for run in RUNS if run != "truth"]
        return max(names, key=lambda run: self.scores(RUNS[run]).mean_average_precision)

    def scores(self, contestant: str) -> Scores:
        """Mean scores of a contestant."""
        return scores(self.results[contestant])


def run_world(out: Path, plan: Plan, seed: int) -> WorldResults:
    """Draw a world, train all runs in it and score them. After a kill, the same call does what is left to do."""
    world = out / "world"
    _announce(1)
    data.synth(world, replace(plan.world, seed=seed), Writing(images_per_shard=1024))  # shards enough for every core
    _announce(2)
    features = histogram_features(world, plan.training.image_size)
    settings = {run: settings_of(run, plan, seed, world) for run in RUNS}
    features[RANDOM] = _embed(first_weights(settings["instance"]), world)
    for part, (run, contestant) in enumerate(RUNS.items(), 3):
        _announce(part)
        features[contestant] = _embed(train(out, run, settings[run]), world)
    _announce(7)
    finetuned = {name: _fine_tune(out, run, finetune_settings(run, plan, seed, out)) for name, run in STARTS.items()}
    _announce(8)
    labels = measure_labels(out, settings["identity"])
    return WorldResults(out, {name: _search(each) for name, each in features.items()}, features, labels, finetuned)


def settings_of(run: Run, plan: Plan, seed: int, world: Path) -> Pretraining:
    """The settings of a run. Runs differ only in who counts as one person: first weights and steps are the same."""
    level: Literal["instance", "tracklet", "identity"] = "identity" if run == "truth" else run
    labels = world / "truth.npz" if run == "truth" else None
    steps = -(-len(Records(world)) // plan.training.batch)
    return replace(plan.training, seed=seed, epoch_steps=steps, level=level, labels=labels)


def finetune_settings(start: Run | None, plan: Plan, seed: int, out: Path) -> Bnneck:
    """The settings of a fine-tuning. Only what the network begins with differs: people and steps are the same."""
    weights = out / start / TEACHER if start else None
    labels = out / "world" / "truth.npz"
    return replace(plan.finetuning, seed=seed, weights=weights, labels=labels)


def histogram_features(world: Path, image_size: tuple[int, int]) -> dict[str, QueryGallery]:
    """Colour histograms as features: plain, and whitened by those of the training images."""
    sides = open_query_gallery(world)
    query, gallery = (histograms(side, image_size) for side in sides)
    whiten = whitening(histograms(Records(world), image_size))
    labels = [np.array(side.index) for side in sides]
    return {
        HISTOGRAMS: QueryGallery(query, gallery, *labels),
        WHITENED: QueryGallery(whiten(query), whiten(gallery), *labels),
    }


def first_weights(settings: Pretraining) -> Weights:
    """The weights that every run begins with."""
    model = model_of(settings)
    state = init_state(model, settings.head, settings.optimization, jax.random.key(settings.seed))
    return Weights(model, teacher_of(state)[0])


def train(out: Path, run: Run, settings: Pretraining) -> Weights:
    """The teacher that a run ends with."""
    _check_finished(pretrain(settings, out / "world", out / run), out / run)
    return load(out / run / TEACHER)


def _fine_tune(out: Path, start: Run | None, settings: Bnneck) -> Scores:
    """The scores of the network that a start becomes."""
    folder = out / "finetuned" / (start or "random")
    _check_finished(finetune(settings, out / "world", folder), folder)
    return scores(_search(_embed(load(folder / FINETUNED), out / "world")))


def _check_finished(finished: bool, run: Path) -> None:
    if not finished:
        raise UserError(f"{run}: stopped with a checkpoint; repeat the command to go on")


def measure_labels(out: Path, settings: Pretraining) -> LabelQuality:
    """Denoise the features of the identity level's final teacher, and compare all labels with the truth."""
    records = Records(out / "world")
    fingerprint = records.card.fingerprint
    run = out / "identity"
    weights = load(run / TEACHER)
    tracked = tracked_features(settings, weights.network, weights.variables, records, progress_bar)
    one, two, three = (denoise(*tracked, replace(settings.denoising, levels=level)) for level in (1, 2, 3))
    labels = {
        "raw tracklets": tracked.tracklet,
        "level 1: in a tracklet": one.labels,
        "level 2: in a video": two.labels,
        "level 3: across videos": three.labels,
    }
    for epoch in relabel_epochs(settings, records):
        labels[f"in the run, from epoch {epoch}"] = read_labelling(labels_path(run, epoch), fingerprint, len(records))
    truth = read_labelling(out / "world" / "truth.npz", fingerprint, len(records))
    return LabelQuality(tracked, three, {name: agreement(each, truth) for name, each in labels.items()})


def _embed(weights: Weights, world: Path) -> QueryGallery:
    return embed_query_gallery(weights.network, weights.variables, world, image_size=weights.network.image_size)


def _search(features: QueryGallery) -> QueryResults:
    distances = cosine(features.query, features.gallery)
    return search(distances, features.query_labels, features.gallery_labels)


def _announce(part: int) -> None:
    print(f"== {part} of {len(PARTS)}: {PARTS[part - 1]}", flush=True)
