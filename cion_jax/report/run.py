"""The page about a run of any method: settings, curves, the identities of its labels, and retrieval.

A part whose files are missing says so; the other parts are there.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.data.dataset import is_dataset, read_card
from cion_jax.data.files import located
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.denoise.noise import Noise
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.query_gallery import SPLITS, embed_query_gallery, open_query_gallery
from cion_jax.evaluate.retrieval import search
from cion_jax.npz import read_npz
from cion_jax.report.curves import Curves, evaluations, read_curves, relabellings, training
from cion_jax.report.denoising import noise_table, sheets
from cion_jax.report.finetuned import ADAPTATION, PRETRAINING, Kind, clusters, kind_of, single_losses, weights_of_run
from cion_jax.report.maps import activity, keeps_maps, plane
from cion_jax.report.page import Heading, Part, beside, folded, page, paragraph, table
from cion_jax.report.ranked import cmc, ranked, roc, score_table
from cion_jax.report.unlabelled import map_of_tracklets, neighbours, tracklets_seen
from cion_jax.report.views import views_seen
from cion_jax.run.journal import METRICS, read_metrics
from cion_jax.run.relabel import LABELS
from cion_jax.run.run_dir import ORIGIN, SETTINGS, WEIGHTS, places
from cion_jax.untrusted import read_json
from cion_jax.weights.file import Weights, load
from tfrecords_tools.stats import statistics

_FIRST = (
    "level", "backbone", "weights", "epochs", "epoch_steps", "batch", "instances", "stages", "image_size", "labels",
    "relabel", "identities_share", "images_share", "identities_file", "images_file", "validation", "feature",
    "clustering", "memory_update", "select", "precision",
)  # fmt: skip
#: Types of what is read of a run's JSON files, where it is there.
_SETTINGS = {"backbone": str, "level": str, "epochs": int, "seed": int, "labels": str | None, "evaluate": str | None}
_ORIGIN = {"data": str, "folder": str, "began_in": str, "fingerprint": str, "began": str, "environment": dict}
_WHOLE = "name a run whose files are whole"
_WROTE = "`cion pretrain`, `finetune` or `adapt`"
_COUNTS = ("images", "shards", "videos", "tracklets", "cameras", "identities", "images without identity")


class Run(NamedTuple):
    """What the folder of a run holds so far."""

    folder: Path
    kind: Kind
    """The method."""
    settings: dict[str, Any]
    origin: dict[str, Any]
    """Empty where it is not known."""
    curves: Curves | None
    labels: dict[int, Path]
    """The labels that were made on the way, by epoch."""
    weights: Weights | None
    """Those of the best epoch, where one is chosen; else the last."""


def read_run(folder: Path) -> Run:
    """Read the folder of a run. Files may be missing, but those that are there must be whole."""
    if not (folder / SETTINGS).exists():
        raise UserError(f"{folder}: not a run ({SETTINGS} is missing); name a folder that {_WROTE} wrote")
    settings = read_json(folder / SETTINGS, _WHOLE, _SETTINGS)
    kind = kind_of(settings)
    if "backbone" not in settings or kind is None:
        raise UserError(f"{folder / SETTINGS}: no settings of a training; name a folder that {_WROTE} wrote")
    metrics = folder / METRICS
    weights = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    made = sorted((folder / LABELS).glob("epoch-*.npz"))
    epochs = {int(digits[1]): path for path in made if (digits := re.fullmatch("epoch-([0-9]{5,9})", path.stem))}
    return Run(
        folder,
        kind,
        settings,
        read_json(folder / ORIGIN, _WHOLE, _ORIGIN) if (folder / ORIGIN).exists() else {},
        read_curves(read_metrics(metrics)) if metrics.exists() else None,
        epochs,
        None if weights is None else load(weights),
    )


def report(run: Run, data: Path | None = None, labels: Path | None = None) -> str:
    """The page, as HTML.

    Args:
        run: The run, from `read_run`.
        data: The dataset folder, with query and gallery, on which the network is scored, or the place where the data
            that it was trained on are now; without it that of the run's own evaluations, or else the one that it was
            trained on.
        labels: Who is who; without it the newest labels that the run made, or else those that it was given.
    """
    train, test = _folders(run, data)
    return page(f"{run.kind.title}: {run.folder.resolve().name}", _parts(run, train, test, labels))


def lost_data(run: Run, data: Path | None = None) -> str | None:
    """A line about the data that a run was trained on, where they cannot be found."""
    if "data" not in run.origin or _folders(run, data)[0] is not None:
        return None
    return f"{run.origin['data']}: what {run.folder} was trained on is not there any more; name its place with --data"


def _parts(run: Run, train: Path | None, test: Path | None, given: Path | None) -> Iterator[Part]:
    yield Heading("Scores")
    yield from retrieval_of(run, test)
    yield Heading("Who is who")
    path = given or labels_file(run)
    yield from people_of(run, path, train or test)
    if train is not None:
        yield from _seen_in_training(run, path, Records(train), test)
    if run.kind != PRETRAINING:
        yield Heading("Weights")
        yield from weights_of_run(run.folder, run.curves, run.weights, run.settings.get("select") == "test")
    yield Heading("Training")
    yield from training_of(run)
    yield Heading("What was run")
    yield from what_was_run(run)
    if train is not None:
        yield from data_card("Trained on", train)
        if Records(train).card.fingerprint != run.origin.get("fingerprint"):
            yield paragraph("This is not what it was trained on: the folder has been written anew since.")
    if test is not None and test != train:
        yield from data_card("Tried on", test)


def _seen_in_training(run: Run, path: Path | None, records: Records, test: Path | None) -> Iterator[Part]:
    """Where nobody is labelled: tracklets, their neighbours, and a map; and what a pre-training saw."""
    labels = None
    if path is not None:
        with suppress(UserError):  # the part before has said why
            labels = read_labelling(path, records.card.fingerprint, len(records))
    if run.weights is not None and not _has_queries(test):
        seen = tracklets_seen(run.weights, records, labels)
        if seen is not None:
            yield Heading("Who is near to whom")
            yield from neighbours(seen, records)
            yield Heading("A map of tracklets")
            yield from map_of_tracklets(seen)
    if "crops" in run.settings:
        yield Heading("What training saw")
        yield from views_seen(run.settings, records, np.array(records.index["tracklet"]) if labels is None else labels)


def what_was_run(run: Run) -> Iterator[str]:
    """Settings and environment of a run."""
    method = {} if run.kind == PRETRAINING else {"method": run.kind.short}
    first = method | {name: run.settings[name] for name in _FIRST if name in run.settings}
    environment = {
        "began": run.origin.get("began", "unknown"),
        **run.origin.get("environment", {"environment": "unknown"}),
    }
    yield beside(table(("setting", "value"), _flat(first)), table(("environment", ""), _flat(environment)))
    yield folded("All settings", table(("setting", "value"), _flat(run.settings)))


def data_card(title: str, folder: Path) -> Iterator[str]:
    """What the splits of a dataset hold."""
    splits = statistics(folder)
    yield paragraph(f"{title} {folder}:")
    yield table(("", *splits), [(name, *(split[name] for split in splits.values())) for name in _COUNTS])


def training_of(run: Run) -> Iterator[str]:
    """The curves of the journal, of evaluations on the way and of relabellings."""
    if run.curves is None or not run.curves.steps:
        yield paragraph("No step has been written down yet.")
        return
    curves = run.curves
    epochs = run.settings.get("epochs")
    unfinished = ", still under way or stopped" if isinstance(epochs, int) and curves.epoch < epochs else ""
    yield paragraph(f"{curves.steps:,} steps, {curves.epoch:.4g} of {epochs} epochs{unfinished}.")
    every_epoch = run.kind == ADAPTATION
    yield from training(curves, run.kind.about, () if every_epoch else [*run.labels])
    yield from single_losses(curves)
    yield from evaluations(curves)
    if every_epoch:
        yield from clusters(run.labels, run.origin.get("fingerprint"))
    else:
        yield from relabellings({epoch: _noise(path, ["noise"])["noise"] for epoch, path in run.labels.items()})


def _noise(path: Path, needed: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The array noise of a labelling, a row for each level, if it is there or needed."""
    arrays = read_npz(path, needed, ["noise"])
    for noise in arrays.values():
        if noise.ndim != 2 or not len(noise) or noise.shape[1] != len(Noise._fields) or noise.dtype.kind not in "iu":
            raise UserError(f"{path}: noise is {noise.dtype} of shape {noise.shape}; make the labels again")
    return arrays


def labels_file(run: Run) -> Path | None:
    """The newest labels that the run made, or else those that it was given."""
    if run.labels:
        return [*run.labels.values()][-1]
    given = run.settings.get("labels")
    there = [path for path in places(run.folder, run.origin, given) if path.exists()] if given else []
    return there[0] if there else Path(given) if given else None


def people_of(run: Run, path: Path | None, data: Path | None) -> Iterator[str]:
    """A labelling: its noise, and some of its people, if `data` are what it was made for."""
    yield paragraph(run.kind.learns if path is None else f"As {path} has it.")
    if path is None and not run.kind.is_told:
        return
    try:
        noise = {} if path is None else _noise(path)
        if noise:
            yield noise_table(noise["noise"])
        if data is None:
            raise UserError("the data that it was trained on are not there")
        records = Records(data)
        labels = _told(run, records) if path is None else read_labelling(path, records.card.fingerprint, len(records))
    except UserError as error:
        yield paragraph(f"No people are shown: {error}.")
        return
    yield from sheets(records, labels)


def _told(run: Run, records: Records) -> np.ndarray:
    """The identities in the records."""
    if records.card.fingerprint != run.origin.get("fingerprint"):
        raise UserError(f"{records.folder} is not what it was trained on")
    return np.array(records.index["identity"], np.int64)


def retrieval_of(run: Run, test: Path | None) -> Iterator[Part]:
    """Retrieval with the features of the run's network on an evaluation set, in numbers and in pictures."""
    if run.weights is None:
        yield paragraph("There are no weights yet: a run writes them after its first epoch.")
        return
    if test is None or not _has_queries(test):
        where = "No data of this run are there" if test is None else f"{test} has no query and gallery"
        yield paragraph(f"{where}; name an evaluation set with --data, and its scores will stand here.")
        return
    query, gallery = open_query_gallery(test)
    model = run.weights.network
    features = embed_query_gallery(model, run.weights.variables, test, image_size=model.image_size)
    distances = cosine(features.query, features.gallery)
    results = search(distances, features.query_labels, features.gallery_labels)
    how = f"{run.settings['level']} level" if run.kind == PRETRAINING else run.kind.short
    contestant = {f"{model.name}, {how}": results}
    yield score_table(contestant)
    yield beside(cmc(contestant), roc(contestant))
    yield Heading("Ranked lists")
    yield from ranked(query, gallery, distances, results)
    if keeps_maps(run.weights):
        yield Heading("Where the network is active")
        yield from activity(run.weights, query)
    yield Heading("A map of people")
    yield from plane(features.gallery, features.gallery_labels)


def _has_queries(data: Path | None) -> bool:
    return data is not None and set(SPLITS) <= set(read_card(data)[0])


def _folders(run: Run, data: Path | None) -> tuple[Path | None, Path | None]:
    """The dataset that the run was trained on, and the one to score it on; None for one that is not there any more."""
    if data is not None:
        read_card(data)  # refuses a folder that is not a dataset
    evaluated, trained = (_there(run, named) for named in (run.settings.get("evaluate"), run.origin.get("data")))
    given = None if data is None else located(data)
    if given is not None and trained is None and _is_trained_on(run, given):
        trained = given
    return trained, given or evaluated or trained


def _there(run: Run, named: str | None) -> Path | None:
    """The dataset that a run was told of, at the first place where it is."""
    return (
        next((place for place in places(run.folder, run.origin, named) if is_dataset(place)), None) if named else None
    )


def _is_trained_on(run: Run, data: Path) -> bool:
    splits = read_card(data)[0]
    return "train" in splits and splits["train"].fingerprint == run.origin.get("fingerprint")


def _flat(settings: dict[str, Any], group: str = "") -> Iterator[tuple[str, str]]:
    """Rows of names and values; those of a nested group begin with its name."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{group}{name}: ")
        else:
            yield f"{group}{name}".replace("_", " "), _plain(value)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
