"""Files of weights as tests make them: by hand, opcode by opcode, and with harm in mind."""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cion_jax.weights.arrays import STORAGES

SUFFIXES = (".pth", ".safetensors")
PLAIN = [name for name in STORAGES if name != "bfloat16"]
STATE = {
    "stem.weight": np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32),
    "norm.running_var": np.ones(4, np.float32),
    "norm.num_batches_tracked": np.array(2**40),
    "bias": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "a": np.zeros((2, 0, 3), np.float64),
}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        assert found[key].tobytes() == value.tobytes(), key
        assert found[key].flags.writeable, key


def archive(path: Path, content: bytes, entries: dict[str, bytes] | None = None, method: int = 0) -> Path:
    """A zip archive as torch.save makes it, around any pickle and any entries."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in (entries or {}).items():
            file.writestr(name, data)
    return path


def tensor(
    offset: int = 0, shape: tuple = (4,), strides: tuple = (1,), count: int = 4, kind: str = "torch\nFloatStorage"
) -> bytes:
    """A pickle of {"w": one tensor in storage 0}, in opcodes of protocol 2."""

    def plain(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + plain("storage") + f"c{kind}\n".encode() + plain("0") + plain("cpu") + plain(count) + b"tQ"
    arguments = b"(" + storage + plain(offset) + plain(shape) + plain(strides) + b"\x89}t"
    return b"\x80\x02}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


FOUR = {"archive/data/0": np.arange(4, dtype="<f4").tobytes()}


# Hostile pickles


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def evil(marker: Path) -> dict[str, bytes]:
    """Pickles that would touch a file, by the name that the refusal must give."""
    touch, code = f"touch {marker}", f"__import__('pathlib').Path({str(marker)!r}).touch()"
    nested = pickle.dumps(Calls(os.system, touch))
    attributes = Calls(getattr, Calls(__import__, "os"), "system")
    system = f"cos\nsystem\n(X{chr(len(touch))}\0\0\0{touch}t".encode()
    return {
        "posix.system": pickle.dumps({"w": Calls(os.system, touch)}, 2),
        "posix.system ": pickle.dumps({"w": Calls(os.system, touch)}, 4),
        "__builtin__.eval": pickle.dumps([Calls(eval, code)], 2),
        "builtins.eval": pickle.dumps([Calls(eval, code)], 4),
        "builtins.exec": pickle.dumps(OrderedDict(w=Calls(exec, code)), 5),
        "builtins.getattr": pickle.dumps(attributes, 4),
        "_pickle.loads": pickle.dumps(Calls(pickle.loads, nested), 4),
        "torch.hub.load": b"\x80\x02ctorch.hub\nload\n(X\x03\0\0\0x/yt" + b"R.",
        "torch.storage._load_from_bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n(t" + b"R.",
        "os.system": b"\x80\x02" + system + b"R.",
        "os.system ": b"\x80\x02}" + system + b"Rb.",
        "os.system  ": b"\x80\x02cargparse\nNamespace\n)\x81}X\x0c\0\0\0__setstate__cos\nsystem\nsb.",
        "torch.FloatStorage.__reduce__": b"\x80\x04\x8c\x05torch\x8c\x17FloatStorage.__reduce__\x93.",
        "collections.OrderedDict.__init__": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    }
