"""The audit of groups: values as plain loops have them, intervals over people, and nobody who could be recognised."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.errors import UserError
from cion_jax.evaluate import fairness
from cion_jax.evaluate.fairness import Audit, Estimate, as_json, audit, notes, tables
from cion_jax.evaluate.group_table import Groups

Pair = tuple[np.ndarray, np.ndarray]


def split_in(*groups: str, people: int) -> Groups:
    """A column `group` with so many people in each of the groups, numbered from 0."""
    return {"group": dict(enumerate(group for group in groups for _ in range(people)))}


def mean(values: np.ndarray) -> dict[str, Pair]:
    """One measure, the mean over queries."""
    return {"score": (values, np.ones(len(values)))}


def estimates(found: Audit, measure: str = "score") -> dict[str, Estimate | None]:
    """Those of the first column by group."""
    return {group.name: group.values[measure] for group in found.columns[0].groups}


def width(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.high - estimate.low


# Values


@settings(max_examples=50, deadline=None)
@given(
    people=st.dictionaries(st.integers(0, 12), st.sampled_from(["", "a", "b", "c"]), min_size=1),
    queries=st.lists(st.tuples(st.integers(-1, 15), st.integers(-5, 5), st.integers(0, 2)), max_size=40),
    min_group=st.integers(1, 4),
)
def test_values_and_counts_equal_a_plain_loop(
    people: dict[int, str], queries: list[tuple[int, int, int]], min_group: int
) -> None:
    identity, above, below = np.array(queries, int).reshape(-1, 3).T
    seen = {one for one, _, _ in queries if one >= 0}
    if not seen & set(people):
        with pytest.raises(UserError, match="in the data"):
            audit({"group": people}, identity, {"score": (above, below)}, rounds=3)
        return
    result = audit({"group": people}, identity, {"score": (above, below)}, min_group=min_group, rounds=100)
    (column,), sizes = result.columns, {}
    for name in sorted({people[one] for one in seen & set(people)} - {""}):
        members = {one for one in seen if people.get(one) == name}
        sizes[name] = len(members)
        if len(members) < min_group:
            continue
        (group,) = (group for group in column.groups if group.name == name)
        assert (group.people, group.queries) == (len(members), sum(one in members for one, _, _ in queries))
        if len({one for one, _, part in queries if one in members and part}) < min_group:
            assert group.values["score"] is None
        else:
            numerator, denominator = (sum(query[part] for query in queries if query[0] in members) for part in (1, 2))
            assert group.values["score"].value == pytest.approx(numerator / denominator)
    small = [size for size in sizes.values() if size < min_group]
    assert len(column.groups) == len(sizes) - len(small)
    assert (column.small_groups, column.small_people) == (len(small), sum(small))
    assert column.missing == sum(not people.get(one) for one in seen)
    assert (result.people, result.unknown) == (len(seen), len(set(people) - seen))


def test_the_largest_gap_is_between_the_extremes_of_each_measure() -> None:
    identity = np.arange(90)
    third = np.repeat([0.5, 0.9, 0.2], 30)
    result = audit(
        split_in("a", "b", "c", people=30), identity, {"up": (third, np.ones(90)), "down": (1 - third**2, np.ones(90))}
    )
    gaps = result.columns[0].gaps
    assert (gaps["up"].above, gaps["up"].below, gaps["up"].size.value) == ("b", "c", pytest.approx(0.7))
    assert (gaps["down"].above, gaps["down"].below, gaps["down"].size.value) == ("c", "b", pytest.approx(0.77))


def test_columns_are_divided_each_by_itself() -> None:
    one, other = split_in("b", "a", people=20)["group"], split_in("c", "d", "c", "d", people=10)["group"]
    values = np.arange(40.0)
    result = audit({"one": one, "other": other}, np.arange(40), mean(values))
    assert [column.name for column in result.columns] == ["one", "other"]
    assert [group.name for group in result.columns[0].groups] == ["a", "b"]
    shown = [{group.name: group.values["score"].value for group in column.groups} for column in result.columns]
    assert shown == [{"b": 9.5, "a": 29.5}, {"c": 14.5, "d": 24.5}]


# Intervals


def test_an_interval_is_as_wide_as_theory_has_it() -> None:
    """The mean of many people spreads like a normal one; the gap of two groups, as two that know nothing of each other.

    Both groups have the very same values: were they drawn together, their gap would have no spread at all.
    """
    values = np.tile(np.random.default_rng(0).standard_normal(500), 2)
    for confidence, deviations in ((0.95, 1.96), (0.8, 1.2816)):
        result = audit(split_in("a", "b", people=500), np.arange(1000), mean(values), confidence=confidence)
        expected = 2 * deviations * values.std() / np.sqrt(500)
        for estimate in estimates(result).values():
            assert width(estimate) == pytest.approx(expected, rel=0.08)
            assert (estimate.low + estimate.high) / 2 == pytest.approx(values.mean(), abs=expected / 20)
        gap = result.columns[0].gaps["score"].size
        assert width(gap) == pytest.approx(np.sqrt(2) * expected, rel=0.08) and gap.value == 0


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """200 worlds of two groups, the ratio of whose sums is truly 2; people have very different numbers of queries."""
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        below = random.gamma(2, size=80)
        above = below * random.gamma(4, 0.5, size=80)
        result = audit(split_in("a", "b", people=40), np.arange(80), {"score": (above, below)}, rounds=200)
        held += sum(estimate.low <= 2 <= estimate.high for estimate in estimates(result).values())
    assert 0.87 < held / 400 < 0.98


def test_people_who_are_alike_leave_no_width_and_a_warning() -> None:
    result = audit(split_in("a", "b", people=25), np.repeat(np.arange(50), 3), mean(np.repeat([0.5, 0.25], 75)))
    assert estimates(result) == {"a": Estimate(0.5, 0.5, 0.5), "b": Estimate(0.25, 0.25, 0.25)}
    assert result.columns[0].gaps["score"].size == Estimate(0.25, 0.25, 0.25)
    assert any("without width" in note for note in notes(result))


def test_the_wider_the_spread_the_wider_the_interval() -> None:
    spread = np.linspace(-1, 1, 30)
    identity, values = np.arange(90), np.concatenate([0.1 * spread, spread, 10 * spread])
    widths = [
        width(each) for each in estimates(audit(split_in("a", "b", "c", people=30), identity, mean(values))).values()
    ]
    assert 0 < 5 * widths[0] < widths[1] < widths[2] / 5


def case(people: int = 60) -> tuple[Groups, np.ndarray, dict[str, Pair]]:
    """Two groups, one to five queries per person, and two measures."""
    random = np.random.default_rng(3)
    identity = np.repeat(np.arange(people), random.integers(1, 6, people))
    score, errors = random.random(len(identity)), random.integers(0, 3, len(identity))
    measures = {"score": (score, np.ones(len(identity))), "errors": (errors, np.full(len(identity), 7))}
    return split_in("a", "b", people=people // 2), identity, measures


def test_draws_without_a_denominator_are_passed_over() -> None:
    """Of two people only one can be wrong: a draw either has that one, or no value at all."""
    result = audit({"group": {0: "a", 1: "a"}}, np.arange(2), {"score": (np.eye(2)[0] / 2, np.eye(2)[0])}, min_group=1)
    assert estimates(result) == {"a": Estimate(0.5, 0.5, 0.5)}


def test_queries_of_a_person_go_together() -> None:
    """Every query twice says nothing new, so no interval may shrink."""
    groups, identity, measures = case()
    once = audit(groups, identity, measures)
    doubled = {name: (np.tile(above, 2), np.tile(below, 2)) for name, (above, below) in measures.items()}
    twice = audit(groups, np.tile(identity, 2), doubled)
    for name in measures:
        for one, other in zip(estimates(once, name).values(), estimates(twice, name).values(), strict=True):
            assert vars(one) == pytest.approx(vars(other))
        assert vars(once.columns[0].gaps[name].size) == pytest.approx(vars(twice.columns[0].gaps[name].size))


def test_the_same_call_says_the_same() -> None:
    result = audit(*case())
    assert result == audit(*case())
    order = np.random.default_rng(0).permutation(len(case()[1]))
    groups, identity, measures = case()
    shuffled = {name: (above[order], below[order]) for name, (above, below) in measures.items()}
    upside_down = {"group": dict(reversed(groups["group"].items()))}
    assert tables(audit(upside_down, identity[order], shuffled)) == tables(result)


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = as_json(audit(*case(), rounds=50))
    monkeypatch.setattr(fairness, "COUNTS_AT_ONCE", 200)
    parts = as_json(audit(*case(), rounds=50))
    np.testing.assert_allclose(figures(parts), figures(whole), rtol=1e-12)
    assert len(figures(whole)) > 20


def figures(told: object) -> list[float]:
    """All numbers in what was read as JSON."""
    if isinstance(told, dict | list):
        return [each for part in (told.values() if isinstance(told, dict) else told) for each in figures(part)]
    return [told] if isinstance(told, int | float) else []


# Who is not shown


def everything(found: Audit) -> str:
    return json.dumps([tables(found), notes(found), as_json(found)], allow_nan=False)


def test_small_groups_leave_only_their_number() -> None:
    """People are told by numbers that stand nowhere else, and the small group's values by theirs."""
    people = {7_000_001 + row: group for row, group in enumerate(["many"] * 25 + ["more"] * 30 + ["rare"] * 19)}
    people |= {8_000_001: "many", 7_000_075: ""}  # in no query, and without a group
    identity = np.repeat(np.arange(7_000_001, 7_000_080), 2)  # the last four have no row
    values = np.where(np.isin(identity, [one for one in people if people[one] == "rare"]), 0.4321, 0.5)
    result = audit({"kind": people}, identity, mean(values))
    (column,) = result.columns
    assert [group.name for group in column.groups] == ["many", "more"]
    assert (column.small_groups, column.small_people, column.missing) == (1, 19, 5)
    assert (result.people, result.unknown) == (79, 1)
    text = everything(result)
    assert not any(str(one) in text for one in {*people, *identity.tolist()})
    assert "rare" not in text and "0.432" not in text
    messages = "\n".join(notes(result))
    assert "left out for fewer than 20 people: 1, with 19 people" in messages
    assert "without a group in the table: 5 of 79" in messages and "whom no query shows: 1." in messages
    assert "cannot be seen here and cannot be ruled out" in messages


def test_people_are_counted_and_not_their_images() -> None:
    groups = {"group": {1: "a", 2: "a", 3: "b"}}
    identity = np.repeat([1, 2, 3], [1, 1, 100])
    result = audit(groups, identity, mean(np.ones(102)), min_group=2)
    assert [(group.name, group.people, group.queries) for group in result.columns[0].groups] == [("a", 2, 2)]
    assert "group: fewer than two groups of at least 2 people; nothing to compare." in notes(result)


@pytest.mark.parametrize("of_the_last_two", ["", "rare"])
def test_one_missing_or_left_out_is_enough_to_say_so(of_the_last_two: str) -> None:
    groups, identity, measures = case()
    groups["group"].update({58: of_the_last_two, 59: of_the_last_two})
    assert "cannot be seen here and cannot be ruled out" in notes(audit(groups, identity, measures))[-1]


def test_a_value_of_few_among_many_people_is_not_shown() -> None:
    """A group may be large, and yet only one of it have what a measure is about."""
    groups, identity, measures = case()
    rare = np.where((identity < 19) | (identity >= 40), 1.0, 0.0)  # 19 people of one group, 20 of the other
    result = audit(groups, identity, measures | {"rare": (rare * 0.4321, rare)})
    assert estimates(result, "rare")["a"] is None and estimates(result, "rare")["b"].value == pytest.approx(0.4321)
    assert result.columns[0].gaps["rare"] is None


def test_where_all_are_shown_nothing_is_said_of_others() -> None:
    messages = "\n".join(notes(audit(*case())))
    assert (
        "ruled out" not in messages
        and "no query" not in messages
        and "left out" not in messages
        and "width" not in messages
    )
    assert "95 % intervals, from 2,000 draws of people" in messages


def test_images_of_nobody_are_passed_over() -> None:
    groups, identity, measures = case()
    more = {name: (np.append(above, 1e6), np.append(below, 1)) for name, (above, below) in measures.items()}
    assert audit(groups, np.append(identity, -1), more) == audit(groups, identity, measures)


@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_measure_without_denominators_has_no_value(missing: str) -> None:
    groups, identity, measures = case()
    lacks = np.array([groups["group"][one] == missing for one in identity.tolist()])
    measures["errors"] = (measures["errors"][0], np.where(lacks, 0, 7))
    result = audit(groups, identity, measures)
    assert [name for name, value in estimates(result, "errors").items() if value is None] == [missing]
    assert result.columns[0].gaps["errors"] is None and result.columns[0].gaps["score"] is not None
    assert "group: fewer than two groups have enough people for errors." in notes(result)
    assert [row[4] == "-" for row in tables(result)["group"]] == [missing == "a", missing == "b"]
    json.loads(everything(result))


# What is told


def test_tables_and_notes_by_hand() -> None:
    """Everybody of a group has the same value, so that intervals are known; and a group whose people differ."""
    values = np.concatenate([np.full(20, 0.75), np.full(20, 0.5), np.tile([0.5, 1], 1000)])
    people = dict(enumerate(["a"] * 20 + ["b"] * 20 + ["c"] * 2000))
    result = audit({"kind": people}, np.arange(2040), mean(values))
    a, b, c = tables(result)["kind"]
    assert (a, b) == (["a", "20", "20", "0.75 [0.75, 0.75]"], ["b", "20", "20", "0.5 [0.5, 0.5]"])
    assert c[:3] == ["c", "2,000", "2,000"] and c[3].startswith("0.75 [0.7")
    assert notes(result)[0] == "kind, score: c is above b by 0.25 [0.239, 0.261], picked as the largest of 3 gaps."


def test_a_gap_whose_interval_holds_0_may_be_chance() -> None:
    values = np.tile(np.linspace(0, 1, 30), 2)
    groups = split_in("a", "b", people=30)
    alike, distance = (audit(groups, np.arange(60), mean(values + shift)) for shift in (0, np.repeat([0, 1], 30)))
    assert "it may be chance" in notes(alike)[0] and "it may be chance" not in notes(distance)[0]


def test_json_has_the_same_figures() -> None:
    result = audit(*case())
    messages = json.loads(json.dumps(as_json(result)))
    (column,) = messages["columns"]
    assert [group["name"] for group in column["groups"]] == ["a", "b"]
    for group, own in zip(column["groups"], result.columns[0].groups, strict=True):
        assert group["values"]["score"] == vars(own.values["score"]) and group["queries"] == own.queries
    assert column["gaps"]["errors"]["above"] == result.columns[0].gaps["errors"].above
    assert (messages["people"], messages["min_group"], messages["confidence"]) == (60, 20, 0.95)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda *case: audit(*case, min_group=0), "min-group 0"),
        (lambda *case: audit(*case, rounds=0), "rounds 0"),
        (lambda *case: audit(*case, confidence=0.0), "confidence 0.0"),
        (lambda *case: audit(*case, confidence=1.0), "confidence 1.0"),
        (lambda *case: audit(*case, confidence=float("nan")), "confidence nan"),
        (
            lambda groups, identity, measures: audit(groups, identity + 60, measures),
            "none of the 60 people .* in the data",
        ),
        (lambda groups, identity, measures: audit(groups, identity[:-1], measures), "score: needs a finite"),
        (lambda groups, identity, _: audit(groups, identity, mean(identity * np.nan)), "score: needs a finite"),
    ],
)
def test_what_makes_no_sense_is_refused(change: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(*case())
