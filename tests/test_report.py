"""The page about a run: what it shows is what was found, all of it can be seen, and what is missing is left out."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cion_jax.commands.report import report
from cion_jax.config import MEAN, STD, World, Writing
from cion_jax.data.labels import LABELS, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.embed import embed_all
from cion_jax.evaluate.retrieval import QueryResults, search
from cion_jax.models.layers import Conv, keep
from cion_jax.models.norms import BatchNorm
from cion_jax.models.zoo import ZOO, Backbone, _Family, backbone
from cion_jax.report import ranked as ranked_module
from cion_jax.report.curves import course, decimated, smoothed
from cion_jax.report.maps import _activity, flattened, plane
from cion_jax.report.ranked import PLACES, cmc, ranked, ranking, roc
from cion_jax.weights.file import Weights, load, save
from tfrecords_tools.world import build, truth

SIZE = (32, 16)
pytestmark = pytest.mark.xdist_group("report")

WORLD = World(identities=5, videos=4, cameras=3, test_identities=14, distractors=6, height=32, width=16, seed=3)


class Small(nn.Module):
    """One convolution, whose map it offers."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(BatchNorm(name="bn1")(Conv(8, 3, 4, name="conv1")(x), train))
        return jnp.mean(keep(self, "stage1", x), axis=(1, 2))


FAMILY = _Family("Small", "none", SimpleNamespace(VARIANTS={"small": Small()}, ORDER="conv1 bn1"))


class Page(HTMLParser):
    """What a page holds: pictures, headings, links, and text paragraph by paragraph."""

    def __init__(self, text: str):
        super().__init__()
        self.pictures: list[dict[str, str]] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.pictures.append({name: value or "" for name, value in attributes})

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def texts_with(self, pattern: str) -> list[re.Match[str]]:
        return [found for text in self.texts if (found := re.search(pattern, text))]


def colours(pixels: np.ndarray) -> int:
    """How many there are."""
    return len(np.unique(pixels.astype(np.int32) @ [1, 1 << 8, 1 << 16]))


@pytest.fixture(scope="module", autouse=True)
def zoo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "small", FAMILY)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / ("world" * 12)  # a name that is wider than a phone
    write_dataset(folder, build(WORLD), Writing(workers=1))
    return folder


def metrics(steps: int, epochs: int) -> list[dict]:
    """Rows as a journal writes them."""
    random, rows = np.random.default_rng(0), []
    for step in range(steps):
        told = {"loss": 9 - step / steps + random.random(), "entropy": 3.0, "feature_std": 0.5, "learning_rate": 1e-3}
        rows.append({"step": step, "time": 0.0, "epoch": (step + 1) / steps * epochs, **told})
        if step:
            rows[-1]["images_per_second"] = 100.0
    return rows


def write_run(run: Path, world: Path) -> Path:
    """A finished run of three epochs with two relabellings and an evaluation."""
    (run / "labels").mkdir(parents=True)
    settings = {"backbone": "small", "level": "identity", "epochs": 3, "relabel": [1, 2], "labels": f"/{'labels' * 12}"}
    settings |= {"image_size": [32, 16], "evaluate": None, "head": {"prototypes": 64}}
    (run / "settings.json").write_text(json.dumps(settings))
    records = Records(world)
    origin = {"data": str(world), "fingerprint": records.card.fingerprint, "began": "2026-11-21 10:00 UTC"}
    (run / "origin.json").write_text(json.dumps(origin | {"environment": {"jax": "0.10.2", "host": "2 cores"}}))
    rows = metrics(120, 3)
    rows[-1] |= {"mAP": 0.25, "rank_1": 0.5, "warning": "all <fell> down"}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = truth(build(WORLD)["train"])
    for epoch, levels in ((1, 2), (2, 3)):
        noise = np.array([[len(labels), 9, 30, 0]] + [[len(labels) - 20, 5 + epoch, 0, 1]] * (levels - 1))
        path = run / "labels" / f"epoch-{epoch:05d}.npz"
        write_labelling(path, labels if epoch == 2 else 0 * labels, records.card.fingerprint, {}, noise=noise)
    model = backbone("small", image_size=SIZE)
    save(run / "teacher.safetensors", Weights(model, model.init(jax.random.key(1))))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """Not to be written to."""
    folder = write_run(tmp_path_factory.mktemp("run") / "run", world)
    report(folder)
    return folder


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "own"))


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return (run / "report.html").read_text()


def test_every_picture_can_be_seen_and_is_told(text: str) -> None:
    pictures = Page(text).pictures
    assert len(pictures) > 100
    for picture in pictures:
        assert len(picture["alt"]) > 8
        kind, data = picture["src"].split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as drawn:
            assert kind == f"data:image/{str(drawn.format).lower()}"
            assert colours(np.asarray(drawn.convert("RGB"))) > 20


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    assert len(text) < 3e6
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert not {"script", "link", "iframe", "object"} & Page(text).tags
    assert all(picture["src"].startswith("data:image/") for picture in Page(text).pictures)


def test_the_page_tells_what_is_in_the_run(text: str, world: Path) -> None:
    page = Page(text)
    headings = ("What was run", "Training", "Who is who", "Scores", "Ranked lists", "A map of people")
    places = [page.texts.index(heading) for heading in headings]
    assert places == sorted(places)
    for told in ("2026-11-21 10:00 UTC", "head: prototypes", f"{len(Records(world)):,}", "120 steps, 3 of 3 epochs."):
        assert told in page.texts, told
    assert "Warning at step 119: all <fell> down" in "".join(page.texts)
    assert "<fell>" not in text
    assert any("mAP 0.250, rank 1 0.500" in picture["alt"] for picture in page.pictures)


def test_sheets_show_the_people_of_the_newest_labelling(text: str, world: Path) -> None:
    labels = truth(build(WORLD)["train"])
    shown = [re.match(r"image (\d+) of identity (\d+)", picture["alt"]) for picture in Page(text).pictures]
    pairs = [(int(each[1]), int(each[2])) for each in shown if each]
    assert len({label for _, label in pairs}) > 1
    assert all(labels[number] == label for number, label in pairs)
    largest = Page(text).texts_with(r"^Identity (\d+): (\d+) images$")
    assert [int(each[2]) for each in largest] == sorted(np.bincount(labels[labels >= 0]), reverse=True)[: len(largest)]


# Ranked lists.


def ranked_plainly(
    query: np.ndarray, gallery: np.ndarray, asking: np.void, labels: np.ndarray
) -> list[tuple[int, bool]]:
    """The protocol as a person would tell it."""
    distances = [1 - float(np.dot(query.astype(float), other.astype(float))) for other in gallery]
    places = []
    for number in sorted(range(len(gallery)), key=lambda number: (distances[number], number)):
        same = labels[number]["identity"] == asking["identity"]
        junk = labels[number]["identity"] == -1
        if not junk and not (same and labels[number]["camera"] == asking["camera"]):
            places.append((number, bool(same)))
    return places


def average_precision(places: list[tuple[int, bool]]) -> float:
    ranks = [rank for rank, (_, right) in enumerate(places, 1) if right]
    return float(np.mean([found / rank for found, rank in enumerate(ranks, 1)])) if ranks else 0.0


@pytest.fixture(scope="module")
def lists(run: Path, world: Path) -> dict[int, list[tuple[int, bool]]]:
    """What each query of the run finds, by plain loops; those that have somebody to find."""
    weights = load(run / "teacher.safetensors")
    sides = [Records(world, split) for split in ("query", "gallery")]
    query, gallery = (embed_all(weights.backbone, weights.variables, side, image_size=SIZE) for side in sides)
    rows = zip(query, sides[0].index, strict=True)
    found = [ranked_plainly(feature, gallery, asking, sides[1].index) for feature, asking in rows]
    return {number: places for number, places in enumerate(found) if any(right for _, right in places)}


def test_lists_are_those_of_plain_loops(text: str, lists: dict[int, list[tuple[int, bool]]]) -> None:
    page, shown = Page(text), []
    for picture in page.pictures:
        if asked := re.match(r"query (\d+):", picture["alt"]):
            shown.append((int(asked[1]), []))
        elif place := re.match(r"rank (\d+), (right|wrong): image (\d+),", picture["alt"]):
            assert int(place[1]) == len(shown[-1][1]) + 1
            shown[-1][1].append((int(place[3]), place[2] == "right"))
    assert len(shown) == 14
    for number, places in shown:
        assert places == lists[number][:PLACES]
    all_told = page.texts_with(r"precision ([\d.]+); .*: (\d+), .*rank (\d+)")
    for (number, _), told in zip(shown, all_told, strict=True):
        ranks = [rank for rank, (_, right) in enumerate(lists[number], 1) if right]
        assert (int(told[2]), int(told[3])) == (len(ranks), ranks[0])
        assert float(told[1]) == pytest.approx(average_precision(lists[number]), abs=6e-4)


def test_scores_are_means_over_the_lists(text: str, lists: dict[int, list[tuple[int, bool]]]) -> None:
    texts = Page(text).texts
    told = dict(pairwise(texts))
    assert told["mAP"] == f"{100 * np.mean([average_precision(places) for places in lists.values()]):.2f} %"
    assert told["rank 1"] == f"{100 * np.mean([places[0][1] for places in lists.values()]):.2f} %"
    assert told["queries"] == str(len(lists))


def test_the_worst_are_the_worst_and_the_best_the_best(text: str, lists: dict[int, list[tuple[int, bool]]]) -> None:
    precisions = [float(found[1]) for found in Page(text).texts_with(r"Average precision ([\d.]+);")]
    expected = sorted(map(average_precision, lists.values()))
    np.testing.assert_allclose(precisions[6:10], expected[:4], atol=6e-4)
    np.testing.assert_allclose(precisions[10:], expected[::-1][:4], atol=6e-4)
    asked = [int(found[1]) for found in Page(text).texts_with(r"^Query (\d+):")]
    assert asked[:6] == [list(lists)[place] for place in np.linspace(0, len(lists) - 1, 6, dtype=int)]


def test_queries_that_can_find_nobody_are_not_shown(world: Path) -> None:
    query, gallery = (Records(world, split) for split in ("query", "gallery"))
    random = np.random.default_rng(0)
    distances = cosine(*(random.standard_normal((len(side), 4)).astype(np.float32) for side in (query, gallery)))
    found = search(distances, query.index, gallery.index)
    nobody = np.arange(len(query)) % 3 == 0
    found = found._replace(answers=np.where(nobody, 0, found.answers), precision=np.where(nobody, 0, found.precision))
    asked = Page("".join(ranked(query, gallery, distances, found))).texts_with(r"^Query (\d+):")
    assert len(asked) == 14 and not any(nobody[int(each[1])] for each in asked)


def test_right_and_wrong_are_told_apart_without_colour(text: str) -> None:
    pattern = r'<figure class="(\w*)"><img alt="(rank|query) ?\d+[,:] (right|wrong)?[^>]*>\s*<figcaption>([^<]*)<'
    marks = {(kind, says, caption[-1]) for kind, _, says, caption in re.findall(pattern, text) if says}
    assert marks == {("right", "right", "✓"), ("wrong", "wrong", "✗")}
    assert re.search(r"\.right img \{[^}]*solid", text) and re.search(r"\.wrong img \{[^}]*dashed", text)


@pytest.mark.parametrize("seed", range(3))
def test_ties_junk_and_cameras_are_ranked_as_in_plain_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.choice(np.float32([-0.5, 0.5]), (60, 4))  # few distances, each of them exact
    labels = np.zeros(60, LABELS)
    labels["identity"], labels["camera"] = random.integers(-1, 5, 60), random.integers(0, 3, 60)
    distances = cosine(vectors[:10], vectors[10:])
    for number in range(10):
        places, right = ranking(distances, number, labels[:10], labels[10:])
        expected = ranked_plainly(vectors[number], vectors[10:], labels[number], labels[10:])
        assert list(zip(places.tolist(), right.tolist(), strict=True)) == expected


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, newest last."""
    figures: list[Figure] = []
    monkeypatch.setattr(ranked_module, "picture", lambda figure, *_: figures.append(figure) or "")
    return figures


def some_found(seed: int) -> tuple[QueryResults, np.ndarray, np.ndarray]:
    """What some queries found, and all pairs' distances by whether they are right, junk left out."""
    random = np.random.default_rng(seed)
    vectors, labels = random.standard_normal((90, 6)).astype(np.float32), np.zeros(90, LABELS)
    labels["identity"], labels["camera"] = random.integers(-1, 12, 90), random.integers(0, 3, 90)
    distances = cosine(vectors[:30], vectors[30:])
    lists = [ranking(distances, number, labels[:30], labels[30:]) for number in range(30)]
    values = [np.asarray(distances.of(number, number + 1))[0][lists[number][0]] for number in range(30)]
    right = np.concatenate([right for _, right in lists])
    found = search(distances, labels[:30], labels[30:])
    return found, np.concatenate(values)[right], np.concatenate(values)[~right]


def test_cmc_counts_queries_that_have_found_somebody(drawn: list[Figure]) -> None:
    contestants = {"one": some_found(0)[0], "other": some_found(1)[0]}
    cmc(contestants)
    lines = drawn[-1].axes[0].lines
    assert len({line.get_linestyle() for line in lines}) == 2
    for line, found in zip(lines, contestants.values(), strict=True):
        firsts = [first for first, answers in zip(found.first, found.answers, strict=True) if answers]
        expected = [sum(first <= rank for first in firsts) / len(firsts) for rank in range(1, 51)]
        np.testing.assert_allclose(line.get_ydata(), expected)


def test_roc_lies_on_the_rates_of_thresholds(drawn: list[Figure]) -> None:
    found, right, wrong = some_found(2)
    roc({"one": found})
    axes = drawn[-1].axes[0]
    assert axes.get_xscale() == "log"
    across, up = (np.asarray(values) for values in axes.lines[0].get_data())
    for threshold in (0.3, 0.8, 1.2):
        point = [(wrong < threshold).mean(), (right < threshold).mean()]
        assert np.abs(np.stack([across, up]).T - point).max(axis=1).min() < 0.01


# Maps.


def test_the_plane_is_that_of_the_largest_variance_however_features_are_turned() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((50, 6)) * [3, 2, 1, 0.5, 0.2, 0.1] + 5
    points, shares = flattened(rows)
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    np.testing.assert_allclose(shares, variances[:2] / variances.sum())
    np.testing.assert_allclose(points.var(axis=0, ddof=1), variances[:2])
    for _ in range(10):
        turn = np.linalg.qr(random.standard_normal((6, 6)))[0]
        np.testing.assert_allclose(flattened(rows @ turn + 3)[0], points, atol=1e-9)


def test_the_plane_shows_the_people_with_the_most_images() -> None:
    labels = np.zeros(200, LABELS)
    labels["identity"] = np.random.default_rng(0).choice(np.arange(-1, 20), 200, p=np.arange(21, 0, -1) / 231)
    labels["camera"] = np.arange(200) % 14
    (picture,) = plane(np.random.default_rng(1).standard_normal((200, 5)), labels)
    names = np.sort(np.array(re.search(r"identities ([\d, ]+);", picture)[1].split(", "), int))
    counts = np.bincount(labels["identity"] + 1, minlength=21)[1:]
    counts[0] = 0
    assert len(names) == 12 and counts[names].min() >= np.delete(counts, names).max()


def test_a_map_of_too_few_is_left_out() -> None:
    assert "<img" not in "".join(plane(np.eye(4), np.zeros(4, LABELS)))


def tokens(count: int) -> Backbone:
    class Tokens(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            values = jnp.arange(2.0 * count).reshape(1, count, 2) * jnp.ones((len(x), 1, 1))
            return keep(self, "tokens", values).mean(axis=1)

    return Backbone("tokens", "none", "none", [], SIZE, False, Tokens(), None)


def test_activity_is_the_root_mean_square_over_channels() -> None:
    model = backbone("small", image_size=SIZE)
    variables = model.init(jax.random.key(0))
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    images = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    last = np.asarray(model.apply(variables, images, return_features=True)[1]["stage1"])
    expected = [[[np.sqrt(np.mean(place**2)) for place in row] for row in image] for image in last]
    np.testing.assert_allclose(_activity(model.apply, variables, pixels), expected, rtol=1e-4)


@pytest.mark.parametrize("count", [32, 33])
def test_tokens_are_laid_out_in_rows(count: int) -> None:
    """With a class token in front, or without."""
    found = _activity(tokens(count).apply, {}, np.zeros((2, *SIZE, 3), np.uint8))
    values = np.sqrt(np.mean(np.arange(2.0 * count).reshape(count, 2)[-32:] ** 2, axis=1))
    np.testing.assert_allclose(found, np.tile(values.reshape(8, 4), (2, 1, 1)), rtol=1e-6)


def test_tokens_of_no_clear_layout_are_left_out() -> None:
    assert _activity(tokens(30).apply, {}, np.zeros((2, *SIZE, 3), np.uint8)) is None


# Curves.


@pytest.mark.parametrize("count", [1, 10, 11, 1000])
def test_decimation_keeps_ends_and_extremes(count: int) -> None:
    random = np.random.default_rng(count)
    x, y = np.arange(count) / 7, random.standard_normal(count)
    few, values = decimated(x, y, 10)
    assert len(few) <= 10 and (np.diff(few) > 0).all()
    assert {x[0], x[-1], x[y.argmin()], x[y.argmax()]} <= set(few)
    np.testing.assert_array_equal(values, y[np.searchsorted(x, few)])
    if count <= 10:
        np.testing.assert_array_equal(few, x)


@pytest.mark.parametrize("window", [1, 4, 5, 100])
def test_smoothing_is_the_mean_over_neighbours(window: int) -> None:
    values, half = np.random.default_rng(0).standard_normal(30), window // 2
    expected = [values[max(0, place - half) : place + half + 1].mean() for place in range(30)]
    np.testing.assert_allclose(smoothed(values, window), expected)


def test_steps_without_a_finite_value_are_passed_over() -> None:
    rows = [{"step": 0, "epoch": 0.5, "loss": 3.0}, {"step": 1, "epoch": 1.0, "loss": float("nan"), "mAP": 0.5}]
    found = course([*rows, {"step": 2, "epoch": 1.5, "loss": 1.0, "warning": "low"}])
    np.testing.assert_array_equal(found.curves["loss"], [[0.5, 1.5], [3.0, 1.0]])
    np.testing.assert_array_equal(found.curves["mAP"], [[1.0], [0.5]])
    assert (found.steps, found.epoch, found.warnings) == (3, 1.5, [(2, "low")])
    assert found.curves.keys() == {"loss", "mAP"}


# What is missing, and what is refused.


def reported(run: Path, *without: str, data: Path | None = None) -> Page:
    """The page about a run that has lost some of its files."""
    for name in ("report.html", *without):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink(missing_ok=True)
    report(run, data=data)
    return Page((run / "report.html").read_text())


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_under_way_shows_what_is_there(own_run: Path) -> None:
    rows = (own_run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:50]
    (own_run / "metrics.jsonl").write_bytes(b"".join(rows)[:-20])  # the last line is being written
    change(own_run / "settings.json", labels=None)
    page = reported(own_run, "teacher.safetensors", "origin.json", "labels")
    assert len(page.pictures) == 5  # the curves
    assert "49 steps, 1.225 of 3 epochs, still under way or stopped." in page.texts
    assert page.texts_with("no weights yet") and page.texts_with("given no labelling") and "unknown" in page.texts
    assert not [path for path in own_run.iterdir() if path.name.startswith(".")]


def test_a_run_of_no_step_has_a_page(own_run: Path) -> None:
    page = reported(own_run, "metrics.jsonl", "teacher.safetensors", "labels")
    assert page.texts_with("No step has been written down yet") and not page.pictures


def test_data_that_are_gone_are_told_of(own_run: Path, tmp_path: Path) -> None:
    change(own_run / "origin.json", data=str(tmp_path / "gone"))
    page = reported(own_run, "metrics.jsonl")
    assert page.texts_with("No data of this run are there") and page.texts_with("No people are shown: the data")
    assert "2: in a video" in page.texts  # the noise is known all the same


def test_data_can_be_named(own_run: Path, world: Path, dataset: Path) -> None:
    page = reported(own_run, "origin.json", "metrics.jsonl", data=world)
    assert page.texts_with("^Query 0:") and page.texts_with("^Identity 0:") and page.texts_with("^Tried on /")
    page = reported(own_run, data=dataset)
    assert page.texts_with("has no query and gallery") and page.texts_with("No people are shown: .*made for other data")


def test_the_run_s_own_evaluation_set_comes_before_its_data(own_run: Path, world: Path, dataset: Path) -> None:
    change(own_run / "settings.json", evaluate=str(dataset))
    page = reported(own_run, "metrics.jsonl", "labels")
    assert page.texts_with(f"^Trained on {world}") and page.texts_with(f"^Tried on {dataset}")
    assert page.texts_with(f"^{dataset} has no query and gallery")


def test_data_that_have_changed_are_told_of(own_run: Path) -> None:
    change(own_run / "origin.json", fingerprint="another")
    page = reported(own_run, "metrics.jsonl", "teacher.safetensors")
    assert page.texts_with("written anew since")


def test_given_labels_are_shown_where_the_run_made_none(own_run: Path, world: Path, tmp_path: Path) -> None:
    labels, given = np.repeat([7, -1, 4], [9, len(Records(world)) - 21, 12]), tmp_path / "given.npz"
    write_labelling(given, labels, Records(world).card.fingerprint, {})
    change(own_run / "settings.json", labels=str(given))
    page = reported(own_run, "metrics.jsonl", "teacher.safetensors", "labels")
    told = page.texts_with(r"^Identity (\d+): (\d+) images")
    assert [(each[1], each[2]) for each in told] == [("4", "12"), ("7", "9")]
    given.unlink()
    assert reported(own_run).texts_with("No people are shown: .*given.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.json", None, r"own: not a run \(settings.json is missing\); name a folder"),
        ("settings.json", "{", r"settings.json: unreadable \(.*\); name a run"),
        ("settings.json", "[1]", r"settings.json: unreadable \(no object\)"),
        ("settings.json", '{"format": 1}', "settings.json: no settings of a pre-training; name"),
        ("origin.json", '{"data": "x', r"origin.json: unreadable"),
        ("metrics.jsonl", 'torn\n{"step": 1}\n', "metrics.jsonl: line 1 is no step's metrics"),
        ("teacher.safetensors", "torn", "teacher.safetensors: "),
        ("labels/epoch-00002.npz", "torn", "epoch-00002.npz: not an .npz"),
    ],
)
def test_what_is_torn_is_refused_in_a_line(own_run: Path, name: str, content: str | None, message: str) -> None:
    (own_run / "report.html").unlink()
    (own_run / name).unlink()
    if content is not None:
        (own_run / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        report(own_run)
    assert "\n" not in str(error.value) and not (own_run / "report.html").exists()


def test_folders_of_another_kind_are_refused(run: Path, world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="world: not a run"):
        report(world)
    with pytest.raises(UserError, match="no finished dataset here"):
        report(run, data=tmp_path)
    with pytest.raises(UserError, match=r"page.html: there is no folder .*nowhere; make it first"):
        report(run, out=tmp_path / "nowhere" / "page.html")


# As a browser shows it.

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Two screens side by side in a frame each, since no window is narrower than 500 pixels; what is in them is measured.
FRAMES = """<!doctype html><meta charset="utf-8">
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0; }} iframe {{ border: 0; height: {height}px; }}</style>
<iframe style="width: 390px" srcdoc="{page}"></iframe><iframe style="width: 1400px" srcdoc="{page}"></iframe>
<script>onload = () => {{ for (const frame of document.querySelectorAll("iframe")) {{
  const inside = frame.contentDocument, left = frame.getBoundingClientRect().left;
  const places = [...inside.images].map(image => {{
    const box = image.getBoundingClientRect();
    return [left + box.left, box.top, left + box.right, box.bottom].map(Math.round).join(" "); }});
  console.log("MEASURED", inside.documentElement.scrollWidth, places.join(","));
}} }};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_paints_all_of_it(text: str, dark: bool, tmp_path: Path) -> None:
    frames, shot, height = tmp_path / "frames.html", tmp_path / "shot.png", 4500
    frames.write_text(FRAMES.format(height=height, page=escape(text)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    options += ["--force-dark-mode"] * dark + [f"--user-data-dir={tmp_path / 'user'}", f"--window-size=1800,{height}"]
    command = [str(CHROMIUM), *options, f"--screenshot={shot}", frames.as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120).stderr
    lines = [line for line in told.splitlines() if "CONSOLE" in line and "source: chrome:" not in line]  # its own pages
    measured = [re.search(r'"MEASURED (\d+) ([\d ,-]*)"', line) for line in lines]
    assert len(lines) == 2 and all(measured), lines
    assert [int(each[1]) for each in measured if each] == [390, 1400]  # nothing is wider than the screen
    seen = np.asarray(Image.open(shot).convert("RGB"))
    assert (seen[5, [5, 1000]].mean(axis=-1) < 60).all() if dark else (seen[5, [5, 1000]].mean(axis=-1) > 200).all()
    for each in measured:
        places = [tuple(map(int, place.split())) for place in each[2].split(",")]
        painted = [seen[top:bottom, left:right] for left, top, right, bottom in places if bottom < height]
        assert len(painted) > 20 and all(part.size > 3000 and colours(part) > 20 for part in painted)
