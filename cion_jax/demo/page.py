"""The demo's page: tables over all worlds, and pictures of the first world."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import mean

import numpy as np

from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.demo.merged import merged_against_truth
from cion_jax.demo.mistakes import drawn_world, tracked
from cion_jax.demo.plan import Plan
from cion_jax.demo.run_world import RUNS, WorldResults
from cion_jax.demo.tables import (
    AGREEMENT,
    FINETUNED,
    SCORES,
    Rows,
    about_differences,
    about_finetuned,
    agreement_rows,
    difference_rows,
    finetuned_rows,
    score_rows,
)
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.query_gallery import open_query_gallery
from cion_jax.evaluate.retrieval import Scores
from cion_jax.report.denoising import denoising_sections
from cion_jax.report.linked import dropped_images
from cion_jax.report.maps import activity, has_map
from cion_jax.report.page import Heading, Part, commands, definitions, folded, page, paragraph, subheading, table
from cion_jax.report.ranked import cmc, ranked
from cion_jax.report.run import Run, data_card, read_run, training_of, what_was_run
from tfrecords_tools.world import build

_WORDS = {
    "Tracklet": "images of consecutive frames of one video that a tracker takes for one person.",
    "Identity": "one person, in all videos. Nobody is named: an identity is a number for a group of images.",
    "Instance, tracklet, identity level": (
        "which images the network learns to see alike: parts of the same image; images of a raw tracklet; images of an "
        "identity. The identity level begins with raw tracklets. Some epochs later it embeds all images, finds out "
        "which tracklets show the same person, and goes on with these labels; it does so several times."
    ),
    "Denoising": (
        "how it finds that out: level 1 drops images that do not fit their tracklet, level 2 joins tracklets of one "
        "video, level 3 joins people across videos."
    ),
    "Query, gallery": "a query is an image of somebody; the same person is sought in the gallery, under other cameras.",
    "mAP": "mean average precision: 100 % if for every query all right images stand before all wrong ones.",
    "Rank 1, 5, 10": "the share of queries with a right image in the first place, or among the first 5 or 10.",
    "mINP": "how far down the last right image stands: 100 % if no wrong image stands before it.",
    "Precision, recall, F1 of labels": (
        "of all pairs of images that are labelled as one person, the share that is right; of all pairs that do show "
        "one person, the share that is labelled so; and their harmonic mean."
    ),
    "NMI, ARI": "two other measures of how well labels agree with the truth; 1 is perfect.",
}
YOUR_OWN = """\
cion data import mot TRACKED DATA       # frames and the boxes of your tracker, as MOTChallenge stores them
cion data import folders CUT_OUT DATA   # or people who are cut out already: video/tracklet/image.jpg
cion data check DATA
cion pretrain resnet50_ibn DATA RUN --dry-run     # steps and memory, before anything is trained
cion pretrain resnet50_ibn DATA RUN               # labels are made on the way, as they were here
cion report RUN
cion evaluate RUN MARKET                # any evaluation set that was imported
cion embed RUN DATA FEATURES --flip --match-colours
cion denoise FEATURES labels.npz --report who-is-who.html --images DATA
cion export RUN/teacher.safetensors weights.pth                 # for PyTorch
"""


def page_of(plan: Plan, worlds: Sequence[WorldResults]) -> str:
    """The page, as HTML."""
    return page("From tracklets to people, in a drawn world", _parts(plan, worlds))


def _parts(plan: Plan, worlds: Sequence[WorldResults]) -> Iterator[Part]:
    world = worlds[0]
    records = Records(world.folder / "world")
    truth = read_labelling(world.folder / "world" / "truth.npz", records.card.fingerprint, len(records))
    run = read_run(world.folder / world.best())
    yield paragraph(_summary(worlds))
    yield Heading("Scores")
    yield from _scores(plan, worlds, run)
    yield Heading(f"What queries find: {RUNS[world.best()]}")
    yield from _ranked(world)
    yield Heading("The drawn world, and what its tracker gets wrong")
    yield from drawn_world(tracked(records, truth, _faults(plan, run)))
    yield Heading("Who is who in training")
    yield from _label_quality(worlds, records, truth)
    yield Heading("Training at the identity level")
    yield from training_of(read_run(world.folder / "identity"))
    if run.weights is not None and has_map(run.weights):
        yield Heading("Where the network is active")
        yield from activity(run.weights, open_query_gallery(world.folder / "world")[0])
    yield Heading("Words")
    yield definitions(_WORDS)
    yield Heading("Your own video")
    yield from _your_own()
    yield Heading("What was run")
    yield folded("Settings of the identity level", "".join(what_was_run(read_run(world.folder / "identity"))))
    yield folded("The data", "".join(data_card("The world", world.folder / "world")))


def _summary(worlds: Sequence[WorldResults]) -> str:
    """What was done in the worlds, and the main scores."""

    def percent(contestant: str) -> str:
        return _mean_map([world.scores(contestant) for world in worlds])

    gained = difference_rows(worlds)[0][1]
    means = f" Numbers are means over {len(worlds)} drawn worlds; pictures are of the first." if worlds[1:] else ""
    return (
        "A small network learned to know people again in videos of a drawn world, where a tracker cuts them out and "
        "makes mistakes. Nobody told it who is who. Then it sought people whom it had never seen, under other cameras. "
        f"Its mean average precision (mAP) is {percent(RUNS['tracklet'])} if it takes every tracklet for a person of "
        f"its own, and {percent(RUNS['identity'])} ({gained} points) if it finds out, while it learns, which tracklets "
        f"are one person.{means}"
    )


def _mean_map(results: Sequence[Scores]) -> str:
    return f"{mean(100 * each.mean_average_precision for each in results):.1f}\N{NO-BREAK SPACE}%"


def _faults(plan: Plan, run: Run) -> np.ndarray:
    """What is wrong with the box of each training image: the world knows what it has drawn."""
    return build(replace(plan.world, seed=run.settings["seed"]))["train"].shots["fault"]


def _scores(plan: Plan, worlds: Sequence[WorldResults], run: Run) -> Iterator[str]:
    epochs = run.settings["epochs"]
    steps = run.settings["epoch_steps"]
    spread = " Mean and standard deviation over the worlds." if worlds[1:] else ""
    yield paragraph(
        "In per cent, for people who were not in training. All four trainings begin with the same weights and take "
        f"{epochs * steps:,} steps, {epochs} epochs of {steps:,}.{spread} Histograms are whitened with the mean and "
        "covariance of those of the training images. True labels are the ceiling of such training: nobody has them."
    )
    yield table(("", *SCORES), score_rows(worlds))
    yield paragraph(
        "Drawn people differ above all in the colours of their clothes. That is what whitened histograms count, and a "
        "network that was trained for minutes need not be better."
    )
    yield subheading("Differences, in points")
    yield table(("", *SCORES), _unbroken(difference_rows(worlds)))
    yield paragraph(about_differences(len(worlds)))
    yield cmc(worlds[0].results)
    yield subheading("Fine-tuned with labels of few people")
    yield paragraph(about_finetuned(plan))
    yield table(("", *FINETUNED), _unbroken(finetuned_rows(worlds)))


def _unbroken(rows: Rows) -> Rows:
    """No line breaks in cells."""
    return [tuple(cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row) for row in rows]


def _ranked(world: WorldResults) -> Iterator[str]:
    contestant = RUNS[world.best()]
    query, gallery = open_query_gallery(world.folder / "world")
    features = world.features[contestant]
    yield paragraph(
        "A query, and the ten images of the gallery that are nearest to it. A tick and a green frame: the same person. "
        "Images of that person under the query's own camera are ignored, as on Market-1501."
    )
    yield from ranked(query, gallery, cosine(features.query, features.gallery), world.results[contestant])


def _label_quality(worlds: Sequence[WorldResults], records: Records, truth: np.ndarray) -> Iterator[Part]:
    labels = worlds[0].labels
    yield paragraph(
        "Labels, held against the truth. The levels of denoising are those of the features of the identity level's "
        "final network. Below them are the labels that the run itself made, at all levels, and trained with from that "
        "epoch on."
    )
    yield table(("", *AGREEMENT), agreement_rows(worlds))
    yield subheading("The most merged identities")
    yield from merged_against_truth(records, labels.denoised.labels, truth)
    yield subheading("Images that were dropped")
    yield from dropped_images(labels.tracked, labels.denoised, records)
    yield subheading("Denoising in numbers")
    yield from denoising_sections(labels.tracked, labels.denoised, title=subheading)


def _your_own() -> Iterator[str]:
    yield paragraph("Track the people in your videos with any tracker. Then, in this order:")
    yield commands(YOUR_OWN)
