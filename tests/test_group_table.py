"""The table that says which group people belong to: what is read, and what is refused without telling what it holds."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cion_jax.errors import UserError
from cion_jax.evaluate import group_table
from cion_jax.evaluate.group_table import read_groups


def test_a_table_is_read(tmp_path: Path) -> None:
    """With a byte order mark, line ends of Windows, blanks, an empty line, quotes, and what is not known."""
    text = '\ufeffidentity, kind ,"age, in years"\r\n7, a,"20, about"\r\n\r\n 012 ,,\r\n'
    (tmp_path / "groups.csv").write_bytes(text.encode())
    assert read_groups(tmp_path / "groups.csv") == {"kind": {7: "a", 12: ""}, "age, in years": {7: "20, about", 12: ""}}


@given(people=st.dictionaries(st.integers(0, 10**9), st.tuples(*[st.sampled_from(["", "a", "é, b"])] * 2), min_size=1))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, people: dict[int, tuple[str, str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "groups.csv"
    rows = [f'{identity},"{one}","{other}"\n' for identity, (one, other) in people.items()]
    path.write_text("identity,one,other\n" + "".join(rows))
    columns = [{identity: pair[number] for identity, pair in people.items()} for number in range(2)]
    assert read_groups(path) == dict(zip(("one", "other"), columns, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: must be identity,COLUMN"),
        (b"\n", ":1: must be identity,COLUMN"),
        (b"person,kind\n4711,secret\n", ":1: must be identity,COLUMN"),
        (b"kind,identity\nsecret,4711\n", ":1: must be identity,COLUMN"),
        (b"identity;kind\n7;secret\n", ":1: must be identity,COLUMN"),
        (b"identity\n4711\n", ":1: must be identity,COLUMN"),
        (b"identity,\n4711,secret\n", ":1: must be identity,COLUMN"),
        (b"identity,kind,kind\n4711,secret,secret\n", ":1: .* each named once"),
        (b"identity,identity\n4711,secret\n", ":1: .* each named once"),
        (b"identity,kind\n", "has no rows"),
        (b"identity,kind\n\n\n", "has no rows"),
        (b"identity,kind\n8,a\n4711.5,secret\n", ":3: the identity is not a whole number"),
        (b"identity,kind\nsecret,4711\n", ":2: the identity is not a whole number"),
        (b"identity,kind\n-4711,secret\n", ":2: the identity is not a whole number"),
        (b"identity,kind\n,secret\n", ":2: the identity is not a whole number"),
        ("identity,kind\n\u0667,secret\n".encode(), ":2: the identity is not a whole number"),
        (b"identity,kind\n" + b"4711" * 1000 + b",secret\n", ":2: the identity is not a whole number"),
        (b"identity,kind\n4711,secret\n8,a\n4711,b\n", ":4: this identity has a row already"),
        (b"identity,kind\n4711,secret\n004711,secret\n", ":3: this identity has a row already"),
        (b"identity,kind\n4711\n", ":2: 1 values for 2 columns"),
        (b"identity,kind\n4711,secret,b\n", ":2: 3 values for 2 columns"),
        (b'identity,kind\n4711,"secret\n', "not usable CSV"),
        (b"identity,kind\n4711," + b"secret" * 50_000 + b"\n", ":2: not usable CSV"),
        (b"identity,kind\n4711,secret\xff\n", "is not UTF-8"),
        ("identity,kind\n4711,secret\n".encode("utf-16"), "is not UTF-8"),
        (b'identity,kind\n4711,"secret\n"\n8,"a\nb"\n', "cannot be printed"),
        (b"identity,kind\n4711,secret\x1b[2J\n", ":2: a group has characters that cannot be printed"),
    ],
    ids=itertools.count(),  # some are long
)
def test_a_table_that_is_none_is_refused_without_telling_what_it_holds(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read_groups(path)
    messages = str(refused.value).removeprefix(str(path))
    assert "\n" not in messages and "secret" not in messages and "4711" not in messages


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.csv: not there; name a table"):
        read_groups(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"a folder, not a file; name a table"):
        read_groups(tmp_path)
    (tmp_path / "groups.csv").write_text("identity,kind\n7,a\n")
    monkeypatch.setattr(group_table, "LARGEST", 17)
    with pytest.raises(UserError, match="larger than"):
        read_groups(tmp_path / "groups.csv")
    monkeypatch.setattr(group_table, "LARGEST", 18)
    assert read_groups(tmp_path / "groups.csv") == {"kind": {7: "a"}}
