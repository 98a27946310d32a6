"""What all processes of a training must have in common, known before any of them waits for the others."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from cion_jax.config import Finetuning, Pretraining, Training
from cion_jax.data.dataset import digest, read_card
from cion_jax.data.records import Records
from cion_jax.evaluate.query_gallery import SPLITS
from cion_jax.hosts import Facts
from cion_jax.run.run_dir import flat

#: A host's own affair, and files: hosts may have them at different places, and what they hold is compared instead.
_LEFT_OUT = ("threads", "labels", "identities_file", "images_file", "evaluate", "weights")
#: Digits of a digest that are shown.
_DIGITS = 12


def facts_of(settings: Training, records: Records, labels: np.ndarray) -> Facts:
    """Settings by name, and digests of what is read.

    Args:
        settings: What was asked for.
        records: What is learnt from.
        labels: Who counts as the same person at the start.
    """
    facts = {name: str(value) for name, value in flat(dataclasses.asdict(settings)).items() if name not in _LEFT_OUT}
    facts["method"] = type(settings).__name__
    facts["the data's fingerprint"] = records.card.fingerprint[:_DIGITS]
    facts["the labels' digest"] = digest(labels)[:_DIGITS]
    if settings.evaluate is not None:
        splits, _ = read_card(settings.evaluate)
        for name in SPLITS:
            facts[f"the {name}'s fingerprint"] = splits[name].fingerprint[:_DIGITS]
    if isinstance(settings, Finetuning | Pretraining) and settings.weights is not None:
        facts["the weights' digest"] = digest_of(settings.weights)
    return facts


def digest_of(path: Path) -> str:
    """A digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
