"""The demo's pictures show what their captions say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cion_jax.data.labels import LABELS
from cion_jax.demo.merged import merged, merged_against_truth
from cion_jax.demo.mistakes import Tracked, drawn_world, tracked
from cion_jax.models.zoo import backbone
from cion_jax.report.maps import has_map
from tfrecords_tools.world.walks import Fault

#: Tracklets of two videos: 0 and 1 are a fragment of person 0, 2 switches to person 2, 3 loses person 1 twice.
VIDEO = np.array([0] * 9 + [1] * 4)
TRACKLET = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])
PERSON = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 1, -1, -1, 1])


def records() -> Any:
    """Images of which every pixel is their number."""
    index = np.zeros(len(VIDEO), LABELS)
    index["video"], index["tracklet"] = VIDEO, TRACKLET
    return SimpleNamespace(index=index, pixels=lambda number: np.full((8, 4, 3), number, np.uint8))


@pytest.fixture
def seen() -> Tracked:
    fault = np.zeros(len(VIDEO), int)
    fault[[1, 10]] = Fault.POLE
    return tracked(records(), PERSON, fault)


def test_who_is_in_which_tracklet(seen: Tracked) -> None:
    assert seen.length.tolist() == [3, 2, 4, 4]
    assert seen.nobody.tolist() == [0, 0, 0, 2]
    assert seen.main.tolist() == [0, 0, 1, 1]
    assert seen.others.tolist() == [0, 0, 1, 0]
    assert seen.video.tolist() == [0, 0, 0, 1]


def test_every_mistake_has_its_example(seen: Tracked) -> None:
    counts, people, _, switch, fragment, background, bad = drawn_world(seen)
    assert (
        "13 images of 3 people in 2 videos" in counts and "25\xa0% of the tracklets show more than one person" in counts
    )
    assert "Person 1, in 2 videos" in people and "video 0" in people and "video 1" in people
    assert "tracklet 2 begins with person 1 and goes on" in switch and (
        switch.count("person 1<"),
        switch.count("person 2<"),
    ) == (3, 1)
    assert "person 0 walks through video 0 once" in fragment and "tracklets 0 and 1." in fragment
    assert (fragment.count("the first<"), fragment.count("the second<")) == (3, 2)
    assert "tracklet 3" in background and background.count('class="wrong"') == 2
    assert bad.count("<figure") == 1 and "post" in bad  # a post before nobody is no example


def test_a_tracker_without_mistakes_shows_none() -> None:
    clean = tracked(records(), TRACKLET, np.zeros(len(VIDEO), int))
    assert not any(
        word in "".join(drawn_world(clean)) for word in ("A switch", "A fragment", "Background", "Bad boxes")
    )


def test_merged_identities_say_how_much_of_them_is_nobody() -> None:
    labels = np.array([5, 5, 5, 5, 5, 7, 7, -1, -1, 5, 5, 5, -1])  # 7 is of one tracklet
    (group,) = merged(labels, TRACKLET, PERSON)
    assert (group.label, group.tracklets, group.main) == (5, 3, 0)
    assert (group.of_main, group.of_others, group.of_nobody) == (5, 1, 2)
    summary, row = merged_against_truth(records(), labels, PERSON)
    assert "12\xa0% other people and 25\xa0% nobody" in summary
    assert "8 images: 5 of person 0, 1 of others, 2 of nobody" in row
    assert (row.count('class="right"'), row.count('class="wrong"')) == (5, 3)


def test_a_group_of_nobody_has_no_main_person() -> None:
    labels, nobody = np.zeros(len(VIDEO), int), np.full(len(VIDEO), -1)
    (group,) = merged(labels, TRACKLET, nobody)
    assert (group.main, group.of_main, group.of_others, group.of_nobody) == (-1, 0, 0, 13)
    assert 'class="right"' not in "".join(merged_against_truth(records(), labels, nobody))


@pytest.mark.parametrize(("size", "worth"), [((32, 16), False), ((128, 64), True)])
def test_a_map_of_a_few_places_is_not_worth_showing(size: tuple[int, int], worth: bool) -> None:
    model = backbone("resnet10_half_ibn", image_size=size)
    assert has_map(SimpleNamespace(network=model, variables=model.shapes())) == worth  # type: ignore[arg-type]
