"""Scores while training: after some epochs the network ranks the gallery of an evaluation set."""

from collections.abc import Callable

import numpy as np

from cion_jax.config import Training
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.embed import Images
from cion_jax.evaluate.query_gallery import embed_query_gallery, open_query_gallery
from cion_jax.evaluate.retrieval import right_answers, scores, search
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.run.damaged import embed_passing
from cion_jax.terminal import ProgressBar


def check_evaluation(settings: Training) -> None:
    """Refuse a folder in which nothing can be scored, before anything is trained."""
    if settings.evaluate_every < 1:
        raise UserError(f"evaluate_every is {settings.evaluate_every}; it must be at least 1")
    if settings.evaluate is not None:
        query, gallery = (np.asarray(side.index) for side in open_query_gallery(settings.evaluate))
        if (right_answers(query, gallery) < 0).all():
            raise UserError(f"{settings.evaluate}: no query has its identity in the gallery under another camera")


def evaluation_scores(
    settings: Training, epochs: int, model: Network, variables: Callable[[], Variables], progress_bar: ProgressBar
) -> dict[str, float]:
    """Scores for the journal after so many epochs; none where none are asked for."""
    if settings.evaluate is None or (epochs % settings.evaluate_every and epochs < settings.epochs):
        return {}
    pair = embed_query_gallery(
        model,
        variables(),
        settings.evaluate,
        image_size=model.image_size,
        precision=settings.precision,
        bar=progress_bar,
    )
    results = search(cosine(pair.query, pair.gallery), pair.query_labels, pair.gallery_labels)
    summary = scores(results)
    return {"mAP": summary.mean_average_precision, "rank_1": summary.rank_1}


def scores_of_some(
    settings: Training, network: Network, variables: Variables, images: Images, labels: np.ndarray, bar: ProgressBar
) -> dict[str, float]:
    """Scores where the first image of each identity under each camera seeks the others; labels have a row an image."""
    features, whole = embed_passing(settings, network, variables, images, bar, "embedding those set aside")
    features, labels = features[whole], labels[whole]
    pairs = np.stack([labels["identity"], labels["camera"]])
    _, query = np.unique(pairs, axis=1, return_index=True)
    summary = scores(search(cosine(features[query], features), labels[query], labels))
    return {"mAP": summary.mean_average_precision, "rank_1": summary.rank_1}
