"""Scores while training: after some epochs the teacher is asked for the people of an evaluation set."""

import numpy as np

from cion_jax.config import Pretraining
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.query_gallery import embed_query_gallery, open_query_gallery
from cion_jax.evaluate.retrieval import right_answers, scores, search
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.terminal import ProgressBar


def check_evaluation(settings: Pretraining) -> None:
    """Refuse a folder in which nothing can be scored, before anything is trained."""
    if settings.evaluate_every < 1:
        raise UserError(f"evaluate_every is {settings.evaluate_every}; it must be at least 1")
    if settings.evaluate is not None:
        asked, searched = (np.asarray(side.index) for side in open_query_gallery(settings.evaluate))
        if (right_answers(asked, searched) < 0).all():
            raise UserError(f"{settings.evaluate}: no query has its identity in the gallery under another camera")


def teacher_scores(
    settings: Pretraining, epochs: int, model: Backbone, teacher: Variables, bar: ProgressBar
) -> dict[str, float]:
    """Scores for the journal after so many epochs; none where none are asked for."""
    if settings.evaluate is None or (epochs % settings.evaluate_every and epochs < settings.epochs):
        return {}
    size = settings.crops.global_size
    trial = embed_query_gallery(
        model, teacher, settings.evaluate, image_size=size, precision=settings.precision, bar=bar
    )
    found = scores(search(cosine(trial.query, trial.gallery), trial.query_labels, trial.gallery_labels))
    return {"mAP": found.mean_average_precision, "rank_1": found.rank_1}
