"""The page about a run: what it shows is what was found, all of it can be seen, and what is missing is left out."""

import json
import re
import shutil
import subprocess
from html import escape
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cion_jax.commands.report import report
from cion_jax.config import Writing
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import cosine
from cion_jax.evaluate.embed import embed_all
from cion_jax.evaluate.retrieval import search
from cion_jax.report.ranked import PLACES, ranked
from cion_jax.weights.file import load
from finished_run import SIZE, WORLD, write_run
from pages import Page, can_be_seen
from plain_ranking import average_precision, ranked_plainly
from processes import HANGS
from tfrecords_tools.world import build, truth

pytestmark = [pytest.mark.xdist_group("report"), pytest.mark.usefixtures("small_in_zoo")]


def colours(pixels: np.ndarray) -> int:
    """How many there are."""
    return len(np.unique(pixels.astype(np.int32) @ [1, 1 << 8, 1 << 16]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / ("world" * 12)  # a name that is wider than a phone
    write_dataset(folder, build(WORLD), Writing(workers=1))
    return folder


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
    assert all(len(picture["alt"]) > 8 and can_be_seen(picture) for picture in pictures)


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    assert len(text) < 3e6
    assert "http" not in re.sub(r"base64,[^\"]*", "", text) and "url(" not in text.replace("url(#", "")
    assert not {"link", "iframe", "object"} & Page(text).tags and text.count("<script") == 1
    assert all("marks" in picture or picture["src"].startswith("data:image/") for picture in Page(text).pictures)


def test_contents_lead_to_each_section(text: str) -> None:
    page = Page(text)
    assert len(page.headings) > 5 and len({*page.sections}) == len(page.headings)
    assert page.links == [f"#{section}" for section in page.sections]


def test_drawings_have_the_colours_of_the_page(text: str) -> None:
    drawings = re.findall("<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) > 5
    for drawing in drawings:
        ElementTree.fromstring(drawing)  # nothing in it is open or without a name
        assert "currentColor" in drawing and not re.search("#000000|#ffffff|#222222|#225588", drawing)


def test_the_page_tells_what_is_in_the_run(text: str, world: Path) -> None:
    page = Page(text)
    headings = ("Scores", "Ranked lists", "A map of people", "Who is who", "Training", "What was run")
    places = [page.headings.index(heading) for heading in headings]
    assert places == sorted(places)
    for messages in (
        "2026-11-21 10:00 UTC",
        "head: prototypes",
        f"{len(Records(world)):,}",
        "120 steps, 3 of 3 epochs.",
    ):
        assert messages in page.texts, messages
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


@pytest.fixture(scope="module")
def lists(run: Path, world: Path) -> dict[int, list[tuple[int, bool]]]:
    """What each query of the run finds, by plain loops; those that have somebody to find."""
    weights = load(run / "teacher.safetensors")
    sides = [Records(world, split) for split in ("query", "gallery")]
    query, gallery = (embed_all(weights.network, weights.variables, side, image_size=SIZE) for side in sides)
    rows = zip(query, sides[0].index, strict=True)
    result = [ranked_plainly(feature, gallery, query_ids, sides[1].index) for feature, query_ids in rows]
    return {number: places for number, places in enumerate(result) if any(right for _, right in places)}


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
    for (number, _), messages in zip(shown, all_told, strict=True):
        ranks = [rank for rank, (_, right) in enumerate(lists[number], 1) if right]
        assert (int(messages[2]), int(messages[3])) == (len(ranks), ranks[0])
        assert float(messages[1]) == pytest.approx(average_precision(lists[number]), abs=6e-4)


def test_scores_are_means_over_the_lists(text: str, lists: dict[int, list[tuple[int, bool]]]) -> None:
    texts = Page(text).texts
    messages = dict(pairwise(texts))
    assert messages["mAP"] == f"{100 * np.mean([average_precision(places) for places in lists.values()]):.2f} %"
    assert messages["rank 1"] == f"{100 * np.mean([places[0][1] for places in lists.values()]):.2f} %"
    assert messages["queries"] == str(len(lists))


def test_the_worst_are_the_worst_and_the_best_the_best(text: str, lists: dict[int, list[tuple[int, bool]]]) -> None:
    precisions = [float(result[1]) for result in Page(text).texts_with(r"Average precision ([\d.]+);")]
    expected = sorted(map(average_precision, lists.values()))
    np.testing.assert_allclose(precisions[6:10], expected[:4], atol=6e-4)
    np.testing.assert_allclose(precisions[10:], expected[::-1][:4], atol=6e-4)
    asked = [int(result[1]) for result in Page(text).texts_with(r"^Query (\d+):")]
    assert asked[:6] == [list(lists)[place] for place in np.linspace(0, len(lists) - 1, 6, dtype=int)]


def test_queries_that_can_find_nobody_are_not_shown(world: Path) -> None:
    query, gallery = (Records(world, split) for split in ("query", "gallery"))
    random = np.random.default_rng(0)
    distances = cosine(*(random.standard_normal((len(side), 4)).astype(np.float32) for side in (query, gallery)))
    result = search(distances, query.index, gallery.index)
    nobody = np.arange(len(query)) % 3 == 0
    result = result._replace(
        answers=np.where(nobody, 0, result.answers), precision=np.where(nobody, 0, result.precision)
    )
    asked = Page("".join(ranked(query, gallery, distances, result))).texts_with(r"^Query (\d+):")
    assert len(asked) == 14 and not any(nobody[int(each[1])] for each in asked)


def test_right_and_wrong_are_told_apart_without_colour(text: str) -> None:
    pattern = r'<figure class="(\w*)"><img alt="(rank|query) ?\d+[,:] (right|wrong)?[^>]*>\s*<figcaption>([^<]*)<'
    marks = {(kind, says, caption[-1]) for kind, _, says, caption in re.findall(pattern, text) if says}
    assert marks == {("right", "right", "✓"), ("wrong", "wrong", "✗")}
    assert re.search(r"\.right img \{[^}]*solid", text) and re.search(r"\.wrong img \{[^}]*dashed", text)


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
    messages = page.texts_with(r"^Identity (\d+): (\d+) images")
    assert [(each[1], each[2]) for each in messages] == [("4", "12"), ("7", "9")]
    given.unlink()
    assert reported(own_run).texts_with("No people are shown: .*given.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.json", None, r"own: not a run \(settings.json is missing\); name a folder"),
        ("settings.json", "{", r"settings.json: unreadable \(.*\); name a run"),
        ("settings.json", "[1]", r"settings.json: unreadable \(a list, not an object\)"),
        ("settings.json", '{"format": 1}', "settings.json: no settings of a training; name"),
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
  const sections = [...inside.querySelectorAll(".section")], open = sections.filter(each => each.open).length;
  sections.forEach(each => each.open = true);
  const places = [...inside.querySelectorAll("img, svg")].map(image => {{
    const box = image.getBoundingClientRect();
    return [left + box.left, box.top, left + box.right, box.bottom].map(Math.round).join(" "); }});
  console.log("MEASURED", inside.documentElement.scrollWidth, open, places.join(","));
}} }};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_paints_all_of_it(text: str, dark: bool, tmp_path: Path) -> None:
    frames, shot, height = tmp_path / "frames.html", tmp_path / "shot.png", 4500
    frames.write_text(FRAMES.format(height=height, page=escape(text)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    options += ["--force-dark-mode"] * dark + [f"--user-data-dir={tmp_path / 'user'}", f"--window-size=1800,{height}"]
    command = [str(CHROMIUM), *options, f"--screenshot={shot}", frames.as_uri()]
    messages = subprocess.run(command, capture_output=True, text=True, timeout=HANGS).stderr
    lines = [
        line for line in messages.splitlines() if "CONSOLE" in line and "source: chrome:" not in line
    ]  # its own pages
    measured = [re.search(r'"MEASURED (\d+) (\d+) ([\d ,-]*)"', line) for line in lines]
    assert len(lines) == 2 and all(measured), lines
    assert [int(each[1]) for each in measured if each] == [390, 1400]  # nothing is wider than the screen
    assert [int(each[2]) for each in measured if each] == [1, len(Page(text).headings)]  # a phone begins with the first
    seen = np.asarray(Image.open(shot).convert("RGB"))
    assert (seen[5, [5, 1000]].mean(axis=-1) < 60).all() if dark else (seen[5, [5, 1000]].mean(axis=-1) > 200).all()
    for each in measured:
        places = [tuple(map(int, place.split())) for place in each[3].split(",")]
        painted = [seen[top:bottom, left:right] for left, top, right, bottom in places if bottom < height]
        assert len(painted) > 20 and all(part.size > 3000 and colours(part) > 20 for part in painted)
