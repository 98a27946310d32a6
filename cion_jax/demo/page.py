"""The demo's page: the tables of all stories, and the first of them in pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cion_jax.data.records import Records
from cion_jax.demo.plan import Plan
from cion_jax.demo.story import Story, named
from cion_jax.demo.tables import AGREEMENT, SCORES, agreement_rows, score_rows
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.trial import sides_of
from cion_jax.report.denoising import told_of
from cion_jax.report.maps import activity, plane
from cion_jax.report.page import beside, heading, page, paragraph, table
from cion_jax.report.ranked import cmc, ranked, roc
from cion_jax.report.run import data_card, read_run, training_of, what_was_run


def page_of(folder: Path, plan: Plan, stories: Sequence[Story]) -> str:
    """The page, as HTML; `folder` is that of the first story."""
    return page("From tracklets to scores in a drawn world", _parts(folder, plan, stories))


def _parts(folder: Path, plan: Plan, stories: Sequence[Story]) -> Iterator[str]:
    story, world = stories[0], folder / "world"
    query, gallery = sides_of(world)
    best = story.best()
    run, trial, found = read_run(folder / best), story.trials[named(best)], story.found[named(best)]
    several = f"Means and standard deviations of {len(stories)} worlds. " if len(stories) > 1 else ""
    yield paragraph(
        f"{several}People who were never in training are sought across cameras. All levels of training have the same "
        f"budget, {plan.training.epochs} passes over the images, and begin with the same weights; the tracklet level "
        "is also the bootstrap whose features tell who is who."
    )
    yield heading("Scores, %")
    yield table(("", *SCORES), score_rows(stories))
    yield beside(cmc(story.found), roc(story.found))
    yield heading("Labels, held against the truth")
    yield table(("", *AGREEMENT), agreement_rows(stories))
    yield paragraph(
        "Of all pairs of images that are called one person, and of all that are: precision, recall and F1. Denoising "
        "sees features, videos, tracklets and frames, never the truth."
    )
    yield from told_of(story.people.sightings, story.people.found, Records(world))
    yield heading(f"The {best} level: ranked lists")
    yield from ranked(query, gallery, cosine(trial.query, trial.gallery), found)
    assert run.teacher is not None
    yield heading("Where the network is active")
    yield from activity(run.teacher, query)
    yield heading("A map of people")
    yield from plane(trial.gallery, trial.gallery_labels)
    yield heading("What was run")
    yield from training_of(run)
    yield from what_was_run(run)
    yield from data_card("The world", world)
