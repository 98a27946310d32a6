"""One story: a drawn world, four trainings in it, and what each of them finds.

OUT/world                                    the drawn world as records, and beside them the truth
OUT/instance, tracklet, identity, truth      the four runs

All runs begin with the same weights and train the same number of steps. The identity level starts from raw tracklets
and makes its labels itself, on the way; the run with the true labels is a ceiling that nobody has in life.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from cion_jax.config import Pretraining, Writing
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
from cion_jax.pretrain.state import fresh, teacher_of
from cion_jax.run.plan import model_of, relabel_epochs
from cion_jax.run.relabel import labels_path, tracked_features
from cion_jax.run.run_dir import TEACHER
from cion_jax.run.trainer import pretrain
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
HISTOGRAMS, WHITENED, RANDOM = "colour histograms", "histograms, whitened", "random weights"
#: What a story does, in this order.
PARTS = (
    "draw a world of walking people, with a tracker's mistakes, and write it as records",
    "colour histograms and random weights: what is found without any training",
    "train the instance level: every image is a person of its own",
    "train the tracklet level: every raw tracklet is a person",
    "train the identity level: it begins with raw tracklets, and finds out on the way who is who",
    "train with the true labels: the ceiling",
    "who is who: labels, held against the truth",
)


class WhoIsWho(NamedTuple):
    """Who is who in the training images."""

    tracked: TrackedFeatures
    """The images as the identity level's final teacher sees them."""
    denoised: Denoised
    """What these features tell after all three levels."""
    agreements: dict[str, Agreement]
    """With the truth: of raw tracklets, after each level, and of the labels that the run made and trained with."""


class Story(NamedTuple):
    """What came of it."""

    folder: Path
    found: dict[str, QueryResults]
    """What the queries found, by contestant."""
    trials: dict[str, QueryGallery]
    who: WhoIsWho

    def best(self) -> Run:
        """The run whose queries find the most, but never the ceiling: nobody has true labels."""
        names: list[Run] = [run for run in RUNS if run != "truth"]
        return max(names, key=lambda run: self.scores(RUNS[run]).mean_average_precision)

    def scores(self, contestant: str) -> Scores:
        """What the queries of a contestant found, as means."""
        return scores(self.found[contestant])


def tell(out: Path, plan: Plan, seed: int) -> Story:
    """Run it all, or what a killed run has left to do."""
    world = out / "world"
    _announce(1)
    data.synth(world, replace(plan.world, seed=seed), Writing(images_per_shard=1024))  # shards enough for every core
    _announce(2)
    trials = by_histograms(world, plan.training.image_size)
    settings = {run: settings_of(run, plan, seed, world) for run in RUNS}
    trials[RANDOM] = _tried(first_weights(settings["instance"]), world)
    for part, (run, contestant) in enumerate(RUNS.items(), 3):
        _announce(part)
        trials[contestant] = _tried(train(out, run, settings[run]), world)
    _announce(7)
    who = who_is_who(out, settings["identity"])
    return Story(out, {name: _found(trial) for name, trial in trials.items()}, trials, who)


def settings_of(run: Run, plan: Plan, seed: int, world: Path) -> Pretraining:
    """The settings of a run: runs differ only in who counts as one person, not in first weights nor in steps."""
    level: Literal["instance", "tracklet", "identity"] = "identity" if run == "truth" else run
    labels = world / "truth.npz" if run == "truth" else None
    steps = -(-len(Records(world)) // plan.training.batch)
    return replace(plan.training, seed=seed, epoch_steps=steps, level=level, labels=labels)


def by_histograms(world: Path, image_size: tuple[int, int]) -> dict[str, QueryGallery]:
    """The queries by colour histograms: plain, and whitened with what the training images have in common."""
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
    state = fresh(model, settings.head, settings.optimization, jax.random.key(settings.seed))
    return Weights(model, teacher_of(state)[0])


def train(out: Path, run: Run, settings: Pretraining) -> Weights:
    """The teacher that a run ends with."""
    if not pretrain(settings, out / "world", out / run):
        raise UserError(f"{out / run}: stopped with a checkpoint; repeat the command to go on")
    return load(out / run / TEACHER)


def who_is_who(out: Path, settings: Pretraining) -> WhoIsWho:
    """Denoise with the features of the identity level's final teacher, and hold all labels against the truth."""
    records, run = Records(out / "world"), out / "identity"
    weights, made_for = load(run / TEACHER), records.card.fingerprint
    tracked = tracked_features(settings, weights.backbone, weights.variables, records, progress_bar)
    one, two, three = (denoise(*tracked, replace(settings.denoising, levels=level)) for level in (1, 2, 3))
    labels = {
        "raw tracklets": tracked.tracklet,
        "level 1: in a tracklet": one.labels,
        "level 2: in a video": two.labels,
        "level 3: across videos": three.labels,
    }
    for epoch in relabel_epochs(settings, records):
        labels[f"in the run, from epoch {epoch}"] = read_labelling(labels_path(run, epoch), made_for)
    truth = read_labelling(out / "world" / "truth.npz", made_for)
    return WhoIsWho(tracked, three, {name: agreement(each, truth) for name, each in labels.items()})


def _tried(weights: Weights, world: Path) -> QueryGallery:
    return embed_query_gallery(weights.backbone, weights.variables, world, image_size=weights.backbone.image_size)


def _found(trial: QueryGallery) -> QueryResults:
    return search(cosine(trial.query, trial.gallery), trial.query_labels, trial.gallery_labels)


def _announce(part: int) -> None:
    print(f"== {part} of {len(PARTS)}: {PARTS[part - 1]}", flush=True)
