"""The shape of the house: imports point one way, and heavy guests are not woken at the door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: What every room may import.
FOUNDATIONS = {f"cion_jax.{name}" for name in ("errors", "config", "atomic", "npz", "hosts", "terminal")}
#: Each room, and the rooms of ours that it may import beside the foundations.
ROOMS: dict[str, set[str]] = {
    "cion_jax.errors": set(),
    "cion_jax.config": set(),
    "cion_jax.atomic": set(),
    "cion_jax.npz": set(),
    "cion_jax.hosts": set(),
    "cion_jax.terminal": set(),
    "cion_jax.xla": set(),
    "cion_jax.models": set(),
    "cion_jax.data": set(),
    "cion_jax.denoise": set(),
    "cion_jax.recipes": set(),
    "cion_jax.weights": {"models"},
    "cion_jax.evaluate": {"models", "data"},
    "cion_jax.pretrain": {"models", "data"},
    "cion_jax.run": {"models", "data", "denoise", "weights", "evaluate", "pretrain"},
    "tfrecords_tools": {"data"},
}
ROOMS = {room: {f"cion_jax.{name}" for name in rooms} for room, rooms in ROOMS.items()}
ROOMS["cion_jax.report"] = {*ROOMS} - {"cion_jax.xla", "cion_jax.recipes"}
ROOMS["cion_jax.demo"] = ROOMS["cion_jax.report"] | {"cion_jax.report"}
ROOMS["cion_jax.commands"] = {*ROOMS}
ROOMS["cion_jax.cli"] = {*ROOMS}
ROOMS["cion_jax"] = {*ROOMS} - {"cion_jax.cli", "cion_jax.commands", "tfrecords_tools"}
ROOMS["experiments"] = {*ROOMS}
FILES = [
    path for folder in ("cion_jax", "tfrecords_tools", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))
]


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] != "cion_jax" else ".".join(parts[:2])


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("cion_jax", "tfrecords_tools", "experiments")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    backwards = {name for name in imports(path) if room_of(name) not in ROOMS[room] | FOUNDATIONS | {room}}
    assert not backwards, f"{room} must not import {', '.join(sorted(backwards))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= (400 if path.is_relative_to(ROOT / "experiments") else 300)
    assert path.stem not in ("utils", "common", "helpers")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} does not fit a screen"


@pytest.mark.parametrize("module", ["cion_jax", "cion_jax.cli", "cion_jax.data.pipeline", "tfrecords_tools.commands"])
def test_importing_wakes_neither_tensorflow_nor_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'torch')))"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_top_level_is_the_agreed_one() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folders = {name.split("/")[0] for name in listed.stdout.splitlines() if "/" in name}
    assert folders <= {"cion_jax", "experiments", "tfrecords_tools", "tests", "docs", ".ci"}


def test_the_zoo_can_be_read() -> None:
    """A chapter is at most 300 lines, the ten families together below 2,000."""
    families = ["resnet", "convnext", "edgenext", "ghostnet", "repvit", "fastvit", "vit", "swin", "volo"]
    lines = [(ROOT / "cion_jax" / "models" / f"{name}.py").read_text().count("\n") for name in families]
    assert max(lines) <= 300 and sum(lines) < 2000
