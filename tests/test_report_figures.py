"""The figures of reports: ranked lists, maps and curves show the numbers that plain loops give."""

import re
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from cion_jax.config import MEAN, STD
from cion_jax.data.labels import LABELS
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.retrieval import QueryResults, search
from cion_jax.models.layers import keep
from cion_jax.models.zoo import ZOO, Backbone, backbone
from cion_jax.report import ranked as ranked_module
from cion_jax.report.curves import decimated, read_curves, smoothed
from cion_jax.report.maps import activity_maps, flattened, plane
from cion_jax.report.ranked import cmc, ranking, roc
from finished_run import FAMILY, SIZE
from plain_ranking import ranked_plainly


@pytest.fixture(scope="module", autouse=True)
def zoo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "small", FAMILY)
        yield


# Ranked lists.


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
    result = search(distances, labels[:30], labels[30:])
    return result, np.concatenate(values)[right], np.concatenate(values)[~right]


def test_cmc_counts_queries_that_have_found_somebody(drawn: list[Figure]) -> None:
    contestants = {"one": some_found(0)[0], "other": some_found(1)[0]}
    cmc(contestants)
    lines = drawn[-1].axes[0].lines
    assert len({line.get_linestyle() for line in lines}) == 2
    for line, result in zip(lines, contestants.values(), strict=True):
        firsts = [first for first, answers in zip(result.first, result.answers, strict=True) if answers]
        expected = [sum(first <= rank for first in firsts) / len(firsts) for rank in range(1, 51)]
        np.testing.assert_allclose(line.get_ydata(), expected)


def test_roc_lies_on_the_rates_of_thresholds(drawn: list[Figure]) -> None:
    result, right, wrong = some_found(2)
    roc({"one": result})
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
    assert "<svg" not in "".join(plane(np.eye(4), np.zeros(4, LABELS)))


def tokens(count: int) -> Backbone:
    class Tokens(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            values = jnp.arange(2.0 * count).reshape(1, count, 2) * jnp.ones((len(x), 1, 1))
            return keep(self, "tokens", values).mean(axis=1)

    return Backbone("tokens", "none", "none", (), SIZE, False, Tokens(), None)


def test_activity_is_the_root_mean_square_over_channels() -> None:
    model = backbone("small", image_size=SIZE)
    variables = model.init(jax.random.key(0))
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    images = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    last = np.asarray(model.apply(variables, images, return_features=True)[1]["stage1"])
    expected = [[[np.sqrt(np.mean(place**2)) for place in row] for row in image] for image in last]
    np.testing.assert_allclose(activity_maps(model, variables, pixels), expected, rtol=1e-4)


@pytest.mark.parametrize("count", [32, 33])
def test_tokens_are_laid_out_in_rows(count: int) -> None:
    """With a class token in front, or without."""
    result = activity_maps(tokens(count), {}, np.zeros((2, *SIZE, 3), np.uint8))
    values = np.sqrt(np.mean(np.arange(2.0 * count).reshape(count, 2)[-32:] ** 2, axis=1))
    np.testing.assert_allclose(result, np.tile(values.reshape(8, 4), (2, 1, 1)), rtol=1e-6)


def test_tokens_of_no_clear_layout_are_left_out() -> None:
    assert activity_maps(tokens(30), {}, np.zeros((2, *SIZE, 3), np.uint8)) is None


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
    result = read_curves([*rows, {"step": 2, "epoch": 1.5, "loss": 1.0, "warning": "low"}])
    np.testing.assert_array_equal(result.values["loss"], [[0.5, 1.5], [3.0, 1.0]])
    np.testing.assert_array_equal(result.values["mAP"], [[1.0], [0.5]])
    assert (result.steps, result.epoch, result.warnings) == (3, 1.5, [(2, "low")])
    assert result.values.keys() == {"loss", "mAP"}
