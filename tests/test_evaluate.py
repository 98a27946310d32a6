"""`cion evaluate`, and scores while training: the same from weights, features and tables; mistakes in one line."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.config import World, Writing
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.feature_store import open_images, write_features
from cion_jax.evaluate.query_gallery import QueryGallery, embed_query_gallery, load_features, load_npz
from cion_jax.evaluate.rerank import reranked
from cion_jax.evaluate.retrieval import Scores, matches, roc_curve, scores, search
from cion_jax.models.zoo import ZOO, backbone
from cion_jax.run.journal import read_metrics
from cion_jax.run.pretraining import pretrain
from cion_jax.weights.file import Weights, load, save
from tfrecords_tools.world import build
from tiny import FAMILY, SETTINGS

pytestmark = pytest.mark.xdist_group("evaluate")

SIZE = (32, 16)
MODEL = backbone("resnet10_half_ibn", image_size=SIZE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people whom a query asks for, and strangers."""
    out = tmp_path_factory.mktemp("evaluate") / "world"
    drawn = World(identities=4, videos=2, cameras=3, test_identities=6, distractors=9, height=32, width=16)
    write_dataset(out, build(drawn), Writing(workers=1))
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `cion pretrain` leaves it, as far as is needed here."""
    out = tmp_path_factory.mktemp("run")
    save(out / "teacher.safetensors", Weights(MODEL, MODEL.init(jax.random.key(0))))
    return out


@pytest.fixture(scope="module")
def pair(world: Path, run: Path) -> QueryGallery:
    return embed_query_gallery(MODEL, MODEL.init(jax.random.key(0)), world, image_size=SIZE)


@pytest.fixture(scope="module")
def features(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "out"
    splits = {name: split for name, split in open_images(world).items() if name != "train"}
    write_features(out, splits, MODEL, MODEL.init(jax.random.key(0)), image_size=SIZE)
    return out


def as_table(path: Path, pair: QueryGallery, **other: np.ndarray) -> Path:
    arrays = {"query": pair.query, "gallery": pair.gallery}
    for side, labels in (("query", pair.query_labels), ("gallery", pair.gallery_labels)):
        arrays |= {f"{side}_{field}": labels[field] for field in ("identity", "camera")}
    np.savez(path, **(arrays | other))
    return path


def score(pair: QueryGallery) -> Scores:
    return scores(
        search(
            cosine(pair.query, pair.gallery),
            pair.query_labels,
            pair.gallery_labels,
        )
    )


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_weights_features_and_tables_have_the_same_scores(
    world: Path,
    run: Path,
    features: Path,
    pair: QueryGallery,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = pytest.approx(score(pair).as_dict(), rel=1e-5)
    assert 0 < score(pair).mean_average_precision < 1
    table = as_table(tmp_path / "table.npz", pair)
    sources = [[str(run), str(world)], [str(run / "teacher.safetensors"), str(world)], [str(table)]]
    for arguments in [*sources, [str(features)], [str(features), str(world)]]:
        assert printed(arguments, capsys) == expected


def test_euclidean_distances_of_unit_vectors_rank_alike(
    features: Path, pair: QueryGallery, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = printed([str(features), "--metric=euclidean"], capsys)
    assert summary["mAP"] == pytest.approx(score(pair).mean_average_precision, rel=1e-3)


def test_reranking_and_expansion_are_what_they_say(
    features: Path, pair: QueryGallery, capsys: pytest.CaptureFixture[str]
) -> None:
    again = scores(
        search(
            reranked(pair.query, pair.gallery),
            pair.query_labels,
            pair.gallery_labels,
        )
    )
    assert printed([str(features), "--rerank"], capsys) == pytest.approx(again.as_dict(), rel=1e-5)
    assert again.mean_average_precision != score(pair).mean_average_precision
    assert printed([str(features), "--expand=2"], capsys)["mAP"] != score(pair).mean_average_precision


def test_a_table_for_people(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(features)]) == 0
    text = capsys.readouterr().out
    for name in ("mAP", "rank 1", "rank 20", "mINP", "TPR at FPR 0.001", "queries"):
        assert name in text


def test_scores_by_group(
    features: Path, pair: QueryGallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three people in each of two groups; their figures are those of a loop over their queries."""
    identity = pair.query_labels["identity"]
    group = {one: "left" if place % 2 else "right" for place, one in enumerate(sorted(set(identity.tolist())))}
    table = tmp_path / "groups.csv"
    table.write_text("identity,side\n" + "".join(f"{one},{side}\n" for one, side in group.items()) + "99,left\n")
    report = printed([str(features), f"--groups={table}", "--min-group=2"], capsys)["groups"]
    results = search(
        cosine(pair.query, pair.gallery),
        pair.query_labels,
        pair.gallery_labels,
    )
    for shown in report["columns"][0]["groups"]:
        own = np.array([group[one] == shown["name"] for one in identity.tolist()]) & (results.answers > 0)
        assert shown["people"] == 3
        assert shown["values"]["mAP"]["value"] == pytest.approx(results.precision[own].mean())
        assert shown["values"]["rank-1 error"]["value"] == pytest.approx((results.first[own] > 1).mean())
    assert report["unknown"] == 1
    assert main(["evaluate", str(features), f"--groups={table}"]) == 0
    text = capsys.readouterr().out
    assert "cannot be ruled out" in text and "nothing to compare" in text  # three people are too few by default


def test_matches_of_each_query_add_up_to_the_curve(pair: QueryGallery) -> None:
    """At the threshold for a false match rate, counted query by query, and against a plain loop."""
    distances, labels = (
        cosine(pair.query, pair.gallery),
        (pair.query_labels, pair.gallery_labels),
    )
    results = search(distances, *labels)
    for rate in (0.0, 0.1, 0.5, 1.0):
        pairs = matches(distances, *labels, results.pairs, rate, block=4)
        false, true = roc_curve(results.pairs)
        place = np.flatnonzero(false <= rate)[-1]
        assert pairs.wrong_matched.sum() == pytest.approx(false[place] * pairs.wrong.sum())
        assert pairs.right_matched.sum() == pytest.approx(true[place] * pairs.right.sum())
    np.testing.assert_array_equal(pairs.right, results.answers)
    searched = pair.gallery_labels[pair.gallery_labels["identity"] != -1]
    for one, wrong in zip(pair.query_labels, pairs.wrong, strict=True):
        assert wrong == (searched["identity"] != one["identity"]).sum()


NAN = np.full((1, 256), np.nan, np.float32)


def test_tables_that_cannot_be_scored_are_answered_with_one_line(
    pair: QueryGallery, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody, elsewhere = pair.query_labels["identity"] + 500, np.full(len(pair.query), 7)
    broken = np.concatenate([pair.query[1:], NAN])
    for other, message in [
        ({"query_identity": nobody}, "no query has its identity in the gallery under another camera"),
        ({"query": broken}, f"query: the feature of image {len(broken) - 1} has NaN or infinite values"),
        ({"gallery": pair.gallery[:, :5]}, "queries are 256 wide, the gallery 5"),
        ({"query": pair.query[:2]}, "query_identity is int32"),
        ({"query_camera": elsewhere.astype(float)}, "query_camera is float64"),
        ({"query": np.float32(1)}, "an integer for each of 0 is needed"),
    ]:
        table = as_table(tmp_path / "table.npz", pair, **other)
        assert main(["evaluate", str(table)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("cion: ") and message in error and error.count("\n") == 1, error
    assert main(["evaluate", str(as_table(tmp_path / "table.npz", pair)), str(world)]) == 1
    assert "has its own labels; leave out one of the two" in capsys.readouterr().err


def test_queries_that_are_absent_from_the_gallery_are_counted(
    pair: QueryGallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = pair.query_labels["identity"].copy()
    identity[identity == 1] = 500
    table = as_table(tmp_path / "table.npz", pair, query_identity=identity)
    assert printed([str(table)], capsys)["left out"] == (identity == 500).sum() > 0
    assert main(["evaluate", str(table)]) == 0
    assert "Left out are queries without a right answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "weights need images to be tried on; name an evaluation set"),
        (["{world}"], "not a run (none of best.safetensors, "),
        (["{run}", "{run}"], "no dataset folder (cion.json is missing)"),
        (["{run}", "{train}"], "has no gallery; name an evaluation set"),
        (["{run}", "{out}"], "no dataset folder"),
        (["{features}", "{other}"], "features of query were not made from"),
        (["{out}.npz"], "not there; name an .npz"),
        (["{features}", "--groups={out}"], "out"),
        (["{features}", "--groups={empty}"], "identity,COLUMN"),
        (["{features}", "--groups={strangers}"], "none of the 1 people of the table is in the data"),
        (["{features}", "--groups={strangers}", "--min-group=0"], "min-group 0"),
        (["{features}", "--expand=5000"], "expansion by 5000: must be from 0 to"),
    ],
)
def test_mistakes_are_answered_with_one_line(
    arguments: list[str],
    message: str,
    world: Path,
    run: Path,
    features: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    if "{other}" in arguments:
        drawn = World(seed=1, identities=4, videos=2, test_identities=3, distractors=3, height=32, width=16)
        write_dataset(other, build(drawn), Writing(workers=1))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "strangers.csv").write_text("identity,side\n999,left\n")
    places = {"run": run, "world": world, "features": features, "train": dataset, "other": other}
    places |= {name: tmp_path / f"{name}.csv" for name in ("empty", "strangers")} | {"out": tmp_path / "out"}
    assert main(["evaluate", *(argument.format(**places) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cion: ") and message in error and error.count("\n") == 1, error


def test_features_of_other_splits_are_refused(world: Path, tmp_path: Path, pair: QueryGallery) -> None:
    write_features(tmp_path / "out", open_images(world, "query"), MODEL, MODEL.init(jax.random.key(0)), image_size=SIZE)
    with pytest.raises(UserError, match="no features of a split 'gallery'"):
        load_features(tmp_path / "out")
    table = as_table(tmp_path / "table.npz", pair)
    loaded = load_npz(table)
    np.testing.assert_array_equal(loaded.query_labels["identity"], Records(world, "query").index["identity"])


def test_the_teacher_is_scored_while_it_learns(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every second epoch and the last; where nothing is asked for, nothing else is trained."""
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    settings = replace(SETTINGS, level="tracklet", epochs=3, instances=(2,), stages=(0,), evaluate_every=2)
    assert pretrain(replace(settings, evaluate=world), world, tmp_path / "watched")
    rows = read_metrics(tmp_path / "watched" / "metrics.jsonl")
    watched = {row["epoch"]: (row["mAP"], row["rank_1"]) for row in rows if "mAP" in row}
    assert list(watched) == [2, 3]
    weights = load(tmp_path / "watched" / "teacher.safetensors")
    last = score(embed_query_gallery(weights.network, weights.variables, world, image_size=weights.network.image_size))
    assert watched[3] == pytest.approx((last.mean_average_precision, last.rank_1))
    assert pretrain(settings, world, tmp_path / "alone")
    alone = read_metrics(tmp_path / "alone" / "metrics.jsonl")
    assert not any("mAP" in row for row in alone)
    assert [row["loss"] for row in alone] == [row["loss"] for row in rows]
    origin = json.loads((tmp_path / "alone" / "origin.json").read_text())
    assert origin["data"] == str(world) and origin["environment"]["jax"] == jax.__version__


def test_an_evaluation_that_cannot_be_is_refused_before_training(
    world: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    for folder, every, message in [
        (dataset, 5, "has no gallery"),
        (tmp_path, 5, "no dataset folder"),
        (world, 0, "evaluate_every is 0"),
    ]:
        with pytest.raises(UserError, match=message):
            pretrain(replace(SETTINGS, evaluate=folder, evaluate_every=every), world, tmp_path / "run")
    assert not (tmp_path / "run").exists()
