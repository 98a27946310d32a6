"""One story: a world, a backbone bootstrapped on its raw tracklets, who is who, three levels of training, and scores.

OUT/world                 the drawn world as records, and the truth beside them
OUT/tracklet, instance, identity    the three runs
OUT/labels.npz            who is who, as denoising found it
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from cion_jax.aside import write_aside
from cion_jax.config import Pretraining, Writing
from cion_jax.data.labels import read_labelling, write_labelling
from cion_jax.data.progress import progress
from cion_jax.data.records import Records
from cion_jax.demo.histograms import histograms
from cion_jax.demo.plan import Plan
from cion_jax.denoise.labelling import Denoised, denoise
from cion_jax.denoise.sightings import Sightings, sightings
from cion_jax.errors import UserError
from cion_jax.evaluate.agreement import Agreement, agreement
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.embed import features
from cion_jax.evaluate.retrieval import Found, scores, search
from cion_jax.evaluate.trial import Trial, embedded, sides_of
from cion_jax.pretrain.folder import TEACHER
from cion_jax.pretrain.loop import pretrain
from cion_jax.pretrain.plan import model_of
from cion_jax.pretrain.state import fresh, teacher_of
from cion_jax.torch_io.weights import Weights, load
from tfrecords_tools import commands as data

Level = Literal["instance", "tracklet", "identity"]
LEVELS: tuple[Level, ...] = ("instance", "tracklet", "identity")
HISTOGRAMS, RANDOM = "colour histograms", "random weights"


class People(NamedTuple):
    """Who is who in the training data, as denoising found it."""

    sightings: Sightings
    found: Denoised
    agreements: list[Agreement]
    """With the truth: of the raw tracklets, and after one, two and three levels."""


class Story(NamedTuple):
    """What came of it."""

    people: People
    found: dict[str, Found]
    """What the queries found, by contestant."""
    trials: dict[str, Trial]

    def best(self) -> Level:
        """The level whose queries find the most."""
        return max(LEVELS, key=lambda level: scores(self.found[named(level)]).mean_average_precision)


def named(level: Level) -> str:
    """A level as a contestant."""
    return f"{level} level"


def tell(out: Path, plan: Plan, seed: int) -> Story:
    """Run it all, or what a killed run has left to do."""
    settings, world = replace(plan.training, seed=seed), out / "world"
    _say("a world of walking people, as records")
    data.synth(world, replace(plan.world, seed=seed), Writing(images_per_shard=1024))  # shards enough for every core
    _say("what colour histograms and random weights find")
    trials = {HISTOGRAMS: _by_histograms(world, settings), RANDOM: _tried(_at_random(settings), world)}
    _say("pre-training at the tracklet level, which is the bootstrap")
    trials[named("tracklet")] = _tried(train(out, settings, "tracklet"), world)
    _say("who is who among the tracklets")
    people = who_is_who(out, plan)
    for level in (LEVELS[0], LEVELS[2]):
        _say(f"pre-training at the {level} level")
        trials[named(level)] = _tried(train(out, settings, level), world)
    order = (HISTOGRAMS, RANDOM, *map(named, LEVELS))
    return Story(people, {name: _found(trials[name]) for name in order}, trials)


def train(out: Path, settings: Pretraining, level: Level) -> Weights:
    """The teacher of the run of a level; all levels have the same budget, and begin with the same weights."""
    labels = out / "labels.npz" if level == "identity" else None
    if not pretrain(replace(settings, level=level, labels=labels), out / "world", out / level):
        raise UserError(f"{out / level}: stopped with a checkpoint; repeat the command to go on")
    return load(out / level / TEACHER)


def who_is_who(out: Path, plan: Plan) -> People:
    """Denoise the raw tracklets with the bootstrapped backbone's features, and hold each level against the truth."""
    records, weights = Records(out / "world"), load(out / "tracklet" / TEACHER)
    with progress("embedding the tracklets", len(records)) as done:
        rows = features(weights.backbone, weights.variables, records, image_size=weights.backbone.image_size, done=done)
    index, made_for = records.index, records.card.fingerprint
    video, tracklet, frame = (np.array(index[name]) for name in ("video", "tracklet", "frame"))
    truth = read_labelling(out / "world" / "truth.npz", made_for)
    found = [denoise(rows, video, tracklet, frame, replace(plan.denoising, levels=level)) for level in (1, 2, 3)]
    last = found[-1]
    told, noise = {"made by": "cion demo"} | last.told(), np.array(last.noise)
    write_aside(out / "labels.npz", lambda path: write_labelling(path, last.labels, made_for, told, noise=noise))
    agreements = [agreement(labels, truth) for labels in (tracklet, *(each.labels for each in found))]
    return People(sightings(rows, video, tracklet, frame), last, agreements)


def _at_random(settings: Pretraining) -> Weights:
    """The weights that every level begins with."""
    model = model_of(settings)
    state = fresh(model, settings.head, settings.optimization, jax.random.key(settings.seed))
    return Weights(model, teacher_of(state)[0])


def _tried(weights: Weights, world: Path) -> Trial:
    return embedded(weights.backbone, weights.variables, world, image_size=weights.backbone.image_size)


def _by_histograms(world: Path, settings: Pretraining) -> Trial:
    sides = sides_of(world)
    query, gallery = (histograms(side, settings.image_size) for side in sides)
    return Trial(query, gallery, *(np.array(side.index) for side in sides))


def _found(trial: Trial) -> Found:
    return search(cosine(trial.query, trial.gallery), trial.query_labels, trial.gallery_labels)


def _say(what: str) -> None:
    print(f"== {what}", flush=True)
