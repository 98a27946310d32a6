"""A gallery: what is nearest by image, tracklet and person, whatever is in the way; and folders that change at once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cion_jax.data.labels import LABELS
from cion_jax.errors import UserError
from cion_jax.gallery import graph
from cion_jax.gallery.answers import ask
from cion_jax.gallery.build import graph_of
from cion_jax.gallery.change import enrolled, without
from cion_jax.gallery.rows import group_numbers, make_rows, text, widest_group
from cion_jax.gallery.search import search
from cion_jax.gallery.store import CARD, Gallery, Origin, read, save

TRACKLETS, EACH, WIDTH = 60, 8, 24


def gallery_of(seed: int = 0, spread: float = 0.4) -> Gallery:
    """Five videos of six people each, who are seen twice: two tracklets after each other are of one person."""
    random = np.random.default_rng(seed)
    tracklet = np.arange(TRACKLETS).repeat(EACH)
    places = random.standard_normal((TRACKLETS // 2, WIDTH))[tracklet // 2]
    features = places + spread * random.standard_normal((len(tracklet), WIDTH))
    labels = np.full(len(tracklet), -1).repeat(len(LABELS)).astype(np.int32).view(LABELS)
    labels["tracklet"] = tracklet
    labels["video"] = tracklet // 12
    labels["frame"] = np.tile(np.arange(EACH), TRACKLETS) + EACH * (tracklet % 2)
    rows = make_rows(labels, person=[str(number // 2) for number in tracklet])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Gallery(features.astype(np.float32), rows, Origin(backbone="none", image_size=(8, 4)))


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return gallery_of()


def test_groups_are_images_tracklets_or_people_as_far_as_they_are_known() -> None:
    labels = np.zeros(6, LABELS)
    labels["tracklet"] = [4, 4, 2, 2, -1, -1]
    rows = make_rows(labels, person=["Anna", "Anna", "Anna", "", "", ""])
    assert group_numbers(rows, "image").tolist() == [0, 1, 2, 3, 4, 5]

    def together(by: str) -> list[list[int]]:
        numbers = group_numbers(rows, by)  # type: ignore[arg-type]
        return [np.flatnonzero(numbers == number).tolist() for number in dict.fromkeys(numbers.tolist())]

    assert together("tracklet") == [[0, 1], [2, 3], [4], [5]]
    assert together("person") == [[0, 1, 2], [3], [4], [5]]
    assert widest_group(rows) == "person"
    assert widest_group(rows[3:]) == "tracklet" and widest_group(rows[4:]) == "image"


def plain_answers(gallery: Gallery, query: np.ndarray, by: str, top: int) -> list[int]:
    """Each group's nearest image, in order, by definition."""
    distance = 1 - gallery.features.astype(float) @ query
    group = group_numbers(gallery.rows, by)  # type: ignore[arg-type]
    best = [min(np.flatnonzero(group == each), key=lambda row: distance[row]) for each in np.unique(group)]
    return sorted(best, key=lambda row: distance[row])[:top]


@pytest.mark.parametrize("by", ["image", "tracklet", "person"])
def test_answers_are_the_nearest_groups_by_their_nearest_images(gallery: Gallery, by: str) -> None:
    queries = np.random.default_rng(1).standard_normal((5, WIDTH))
    result = search(gallery, 3 * queries, 12, by)  # type: ignore[arg-type]
    for query, rows, distance in zip(queries, *result, strict=True):
        unit = query / np.linalg.norm(query)
        assert rows.tolist() == plain_answers(gallery, unit, by, 12)
        np.testing.assert_allclose(distance, 1 - gallery.features[rows] @ unit, atol=1e-6)


def test_a_crowd_in_front_does_not_hide_the_groups_behind_it(gallery: Gallery) -> None:
    """More images of one tracklet than are sought at first; and fewer groups than are asked for."""
    features = np.concatenate([np.repeat(gallery.features[:1], 500, axis=0), gallery.features])
    rows = np.concatenate([np.repeat(gallery.rows[:1], 500), gallery.rows])
    crowded = replace(gallery, features=features, rows=rows)
    result = search(crowded, gallery.features[:1], 3, "tracklet")
    expected = search(gallery, gallery.features[:1], 3, "tracklet")
    np.testing.assert_allclose(result.distance, expected.distance, atol=1e-6)
    result = search(gallery, gallery.features[:1], 70, "tracklet")
    assert (result.row[0] >= 0).sum() == TRACKLETS and np.isinf(result.distance[0, TRACKLETS:]).all()


def test_a_folder_gives_back_what_was_saved(gallery: Gallery, tmp_path: Path) -> None:
    out = tmp_path / "index"
    save(out, replace(gallery, made="so"))
    result = read(out)
    np.testing.assert_array_equal(result.features, gallery.features)
    np.testing.assert_array_equal(result.rows, gallery.rows)
    assert (result.origin, result.made, result.graph) == (gallery.origin, "so", None)
    half = replace(gallery, features=gallery.features.astype(np.float16))
    save(tmp_path / "half", half)
    found = search(read(tmp_path / "half"), gallery.features[:20], 5)
    np.testing.assert_allclose(found.distance, search(gallery, gallery.features[:20], 5).distance, atol=1e-3)


def test_a_person_comes_and_goes_without_a_trace(gallery: Gallery, tmp_path: Path) -> None:
    out = tmp_path / "index"
    save(out, gallery)
    secret = np.random.default_rng(9).standard_normal((2, WIDTH)).astype(np.float32)
    secret /= np.linalg.norm(secret, axis=1, keepdims=True)
    save(out, enrolled(read(out), "Zoë Ünal", secret, ["/pictures/zoë 1.jpg", "/pictures/2.jpg"]))
    there = read(out)
    answers = ask(there, secret[:1], ["query"])
    first = next(answers.of(0))
    assert first["person"] == "Zoë Ünal" and first["image"] == "/pictures/zoë 1.jpg" and first["match"]
    assert "tracklet" not in first
    assert len(search(there, secret[:1], 99, "person").row[0]) == 99
    save(out, without(there, "Zoë Ünal"))
    assert len(read(out).rows) == len(gallery.rows)
    assert not any(secret[0].tobytes() in path.read_bytes() for path in out.rglob("*.npy"))
    assert not any("Zoë".encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())
    save(out, without(read(out), tracklet=7))
    assert 7 not in read(out).rows["tracklet"] and len(read(out).rows) == len(gallery.rows) - EACH


def test_what_is_not_there_is_named(gallery: Gallery) -> None:
    with pytest.raises(UserError, match="no person 'Anna'; there are 0, 1, 10, 11, 12, 13, 14, 15 and 22 more"):
        without(gallery, "Anna")
    with pytest.raises(UserError, match="no tracklet -1"):
        without(gallery, tracklet=-1)
    for arguments in ({}, {"person": "1", "tracklet": 1}):
        with pytest.raises(UserError, match="one of both"):
            without(gallery, **arguments)
    with pytest.raises(UserError, match=r"'a\\nb': a person's name"):
        enrolled(gallery, "a\nb", gallery.features[:1], ["x.jpg"])
    with pytest.raises(UserError, match="ask for 1 at least"):
        search(gallery, gallery.features[:1], 0)
    with pytest.raises(UserError, match="embed both with one network"):
        search(gallery, gallery.features[:1, :9], 1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("writes", range(4))
def test_a_killed_command_leaves_the_old_index_whole(
    writes: int, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of the renames: features, rows, their names, and the card."""
    out = tmp_path / "index"
    save(out, gallery)
    before = read(out)
    moves = 0
    rename = Path.replace

    def killed(path: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves > writes + (writes == 3):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(out, without(before, "3"))
    monkeypatch.undo()
    np.testing.assert_array_equal(read(out).features, gallery.features)
    np.testing.assert_array_equal(read(out).rows, gallery.rows)
    save(out, without(read(out), "3"))
    save(tmp_path / "never killed", without(gallery, "3"))
    assert files_of(out) == files_of(tmp_path / "never killed")  # nor is anything left of the killed one


def test_two_changes_at_a_time_do_not_lose_one(gallery: Gallery, tmp_path: Path) -> None:
    out = tmp_path / "index"
    save(out, gallery)
    mine, theirs = read(out), read(out)
    save(out, without(theirs, "1"))
    with pytest.raises(UserError, match="was changed meanwhile"):
        save(out, without(mine, "2"))
    assert b"1" not in read(out).rows["person"] and b"2" in read(out).rows["person"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UserError, match="already holds something else"):
        save(tmp_path / "other", gallery)


def test_whatever_is_changed_in_a_folder_is_noticed(gallery: Gallery, tmp_path: Path) -> None:
    save(tmp_path / "good", gallery)
    for number, path in enumerate(sorted(files_of(tmp_path / "good"))):
        out = shutil.copytree(tmp_path / "good", tmp_path / f"bad {number}")
        data = bytearray((out / path).read_bytes())
        data[-20] ^= 1
        (out / path).write_bytes(data)
        with pytest.raises(UserError):
            read(out)
        (out / path).unlink()
        with pytest.raises(UserError, match="not there"):
            read(out)


def test_a_card_cannot_lead_out_of_the_folder(gallery: Gallery, tmp_path: Path) -> None:
    save(tmp_path / "index", gallery)
    card = json.loads((tmp_path / "index" / CARD).read_text())
    from cion_jax.untrusted import signed

    for change in (
        {"files": card["files"] | {"rows": card["files"]["rows"] | {"name": "../../rows.npy"}}},
        {"origin": card["origin"] | {"flip": "yes"}},
        {"origin": card["origin"] | {"image_size": [1e9, 4]}},
        {"files": {}},
        {"format": 9},
    ):
        (tmp_path / "index" / CARD).write_text(json.dumps(signed(card | change)))
        with pytest.raises(UserError, match=r"index\.json: (unreadable|format 9)"):
            read(tmp_path / "index")


def test_texts_are_shown_without_what_a_terminal_would_obey() -> None:
    rows = make_rows(np.zeros(2, LABELS), path=["a\x1b[31m.jpg", "b\udcff.jpg"])
    assert [text(path) for path in rows["path"]] == ["a?[31m.jpg", "b?.jpg"]
    with pytest.raises(TypeError, match="no such text: persons"):
        make_rows(np.zeros(1, LABELS), persons=["x"])


@pytest.fixture
def approximate(gallery: Gallery, tmp_path: Path) -> Path:
    pytest.importorskip("usearch")
    index, recall = graph_of(gallery)
    assert recall > 0.95
    save(tmp_path / "graph", replace(gallery, recall=recall), index.save)
    return tmp_path / "graph"


def test_a_graph_proposes_and_features_decide(gallery: Gallery, approximate: Path) -> None:
    there = read(approximate)
    assert there.graph is not None and there.recall
    queries = np.random.default_rng(2).standard_normal((20, WIDTH)).astype(np.float32)
    fast, exact = (search(there, queries, 5, "person", exact=exact) for exact in (False, True))
    assert np.mean(fast.row == exact.row) > 0.95
    same = fast.row == exact.row
    np.testing.assert_array_equal(fast.distance[same], exact.distance[same])  # not those of 8 bits
    assert len(search(there, queries[:1], 5).row) == 1


def test_a_graph_grows_with_the_gallery_and_never_answers_for_an_older_one(approximate: Path) -> None:
    before = read(approximate)
    new = np.eye(WIDTH, dtype=np.float32)[:3]
    larger = enrolled(before, "Anna", new, ["1.jpg", "2.jpg", "3.jpg"])
    assert larger.graph is None
    index, _ = graph_of(larger, before)
    save(approximate, larger, index.save)
    there = read(approximate)
    assert search(there, new, 1).row[:, 0].tolist() == [len(before.rows) + each for each in range(3)]
    with pytest.raises(UserError, match="not 100 of 24"):
        graph.load(there.graph, 100, WIDTH)  # type: ignore[arg-type]
    save(approximate, without(there, "Anna"))
    assert read(approximate).graph is None and not [*approximate.rglob("*.usearch")]
