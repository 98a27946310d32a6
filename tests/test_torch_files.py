"""Weight files: what PyTorch writes is read, and PyTorch reads what we write. Needs torch."""

import argparse
import datetime
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cion_jax.errors import UserError
from cion_jax.weights.foreign import read_metadata, read_state, write_state
from cion_jax.weights.state_dicts import split_prefixes, stripped
from weight_files import PLAIN, STATE, SUFFIXES, assert_same


def saved(path: Path, content: object, **options: Any) -> Path:
    pytest.importorskip("torch").save(content, path, **options)
    return path


def numpies(state: dict) -> dict[str, np.ndarray]:
    half = {pytest.importorskip("torch").bfloat16, pytest.importorskip("torch").float16}
    return {key: (value.float() if value.dtype in half else value).detach().numpy() for key, value in state.items()}


def torch_state() -> dict:
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    return OrderedDict(
        {
            "weight": torch.randn(3, 4),
            "transposed": base.T,
            "view": base[1:3, ::2],
            "shared": base,
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "zero": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "half": torch.randn(5, 2).half().T,
            "bfloat": torch.randn(5, 2).bfloat16().T,
            "bfloat_zero": torch.tensor(0.3).bfloat16(),
            "bool": torch.tensor([True, False]),
            "parameter": torch.nn.Parameter(torch.randn(2)),
            **{
                str(kind): torch.arange(5).to(kind)
                for kind in (torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32)
            },
        }
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_torch_are_read(protocol: int, tmp_path: Path) -> None:
    state = torch_state()
    for content in (state, dict(state), {"state_dict": state, "arch": "vit"}, {"model": state}):
        path = saved(tmp_path / "weights.pth", content, pickle_protocol=protocol)
        assert_same(read_state(path), numpies(state))
        assert list(read_state(path)) == list(state)


def test_states_of_modules_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert_same(read_state(saved(tmp_path / "model.pt", model.state_dict())), numpies(model.state_dict()))
    with pytest.raises(UserError, match=r"refused: its pickle asks for 'torch.nn.modules.container.Sequential'"):
        read_state(saved(tmp_path / "model.pt", model))


def test_training_checkpoints_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(3, 4), "head": torch.nn.Linear(4, 2)})
    optimizer = torch.optim.AdamW(model.parameters())
    model["head"](model["backbone"](torch.ones(2, 3))).sum().backward()
    optimizer.step()
    teacher = {f"module.{key}": value + 1 for key, value in model.state_dict().items()}
    content = {
        "teacher": teacher,
        "student": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 5,
        "args": argparse.Namespace(
            lr=1e-3, betas=(0.9, 0.99), out=Path("x"), dim=np.float64(3), device=torch.device("cpu"), big=2**80
        ),
        "Loss": {"center": torch.ones(1, 5)},
        "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "kind": torch.bfloat16,
        "size": torch.ones(2, 3).shape,
    }
    path = saved(tmp_path / "checkpoint.pth", content)
    assert_same(read_state(path), numpies(teacher))
    assert_same(read_state(path, "student"), numpies(model.state_dict()))
    backbone, head = split_prefixes(stripped(read_state(path), None)[0])
    assert list(backbone) == list(head) == ["weight", "bias"]


def test_torch_reads_what_we_write(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    state = STATE | {name: np.arange(6).astype(name).reshape(2, 3) for name in PLAIN}
    for suffix in SUFFIXES:
        write_state(tmp_path / f"weights{suffix}", state)
    write_state(tmp_path / "wrapped.pth", state, wrap="teacher")
    result = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert list(result) == list(state) and type(result) is OrderedDict
    for tensors in (
        result,
        torch.load(tmp_path / "weights.pth", weights_only=True, mmap=True),
        torch.load(tmp_path / "wrapped.pth", weights_only=True)["teacher"],
        load_file(tmp_path / "weights.safetensors"),
    ):
        assert_same({key: value.numpy() for key, value in tensors.items()}, state)


def test_safetensors_of_torch_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    state = {key: value.detach().contiguous().clone() for key, value in torch_state().items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert_same(read_state(tmp_path / "weights.safetensors"), numpies(state))


@pytest.mark.parametrize("wrap", [None, "state_dict"])
def test_the_format_before_torch_1_6_is_read(wrap: str | None, tmp_path: Path) -> None:
    state = torch_state()
    content = {wrap: state, "epoch": 3, "optimizer": {"state": {0: state}}} if wrap else state
    path = saved(tmp_path / "old.pth", content, _use_new_zipfile_serialization=False)
    assert_same(read_state(path), numpies(state))
    assert list(read_state(path)) == list(state) and read_metadata(path) == {}


def test_every_byte_of_the_old_format_matters_or_not(tmp_path: Path) -> None:
    """Each byte of a small file set to each of a few values, and the file cut short anywhere."""
    torch = pytest.importorskip("torch")
    path = saved(tmp_path / "old.pth", {"w": torch.arange(3.0)}, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"old\.pth: "):
            read_state(path)
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                state = read_state(path)
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert all(isinstance(value, np.ndarray) for value in state.values())
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="1 bytes behind its last storage"):
        read_state(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_odd_values_beside_the_weights_are_passed_over(protocol: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.randn(2, 3))
    parameter.note = "a parameter that carries an attribute"
    buffer = torch.nn.Buffer(torch.arange(4.0))
    buffer.note = "and a buffer"
    counts = defaultdict(list)
    counts["a"].append(1)
    content = {
        "model": {"fc.weight": parameter, "fc.running": buffer, "plain.weight": torch.ones(2)},
        "array": np.arange(6.0).reshape(2, 3),
        "numbers": {np.str_("x"): np.float32(3), "y": np.bool_(True)} if protocol > 2 else np.int64(3),
        "counts": counts,
        "seen": {1, 2, 3},
        "fixed": frozenset({"a"}),
        "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        "took": datetime.timedelta(hours=3),
        "bytes": b"\x00\xff",
        "where": Path("x"),
        "complex": 1j,
    }
    state = read_state(saved(tmp_path / "odd.pth", content, pickle_protocol=protocol))
    assert_same(state, numpies(content["model"]))
    inside = {**content["model"], "epoch": np.int64(3), "tags": {"a"}}
    assert_same(read_state(saved(tmp_path / "odd.pth", inside, pickle_protocol=protocol)), numpies(content["model"]))
