"""The shape of the house: imports point one way, and heavy guests are not woken at the door."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: What every room may import.
FOUNDATIONS = {f"cion_jax.{name}" for name in ("errors", "config", "atomic", "untrusted", "npz", "hosts", "terminal")}
#: Each room, and the rooms of ours that it may import beside the foundations.
ROOMS: dict[str, set[str]] = {
    "cion_jax.errors": set(),
    "cion_jax.config": set(),
    "cion_jax.atomic": set(),
    "cion_jax.untrusted": set(),
    "cion_jax.npz": set(),
    "cion_jax.hosts": {"roll_call"},
    "cion_jax.roll_call": set(),
    "cion_jax.terminal": set(),
    "cion_jax.xla": set(),
    "cion_jax.models": set(),
    "cion_jax.data": set(),
    "cion_jax.denoise": set(),
    "cion_jax.recipes": set(),
    "cion_jax.people": {"data"},
    "cion_jax.programs": set(),
    "cion_jax.weights": {"models", "finetune"},
    "cion_jax.evaluate": {"models", "data"},
    "cion_jax.pretrain": {"models", "data"},
    "cion_jax.finetune": {"models", "data", "pretrain"},
    "cion_jax.run": {"programs", "models", "data", "denoise", "weights", "evaluate", "pretrain", "finetune"},
    "cion_jax.export": {"models", "evaluate", "finetune"},
    "tfrecords_tools": {"data"},
    "cion_jax.gallery": {"models", "data", "weights", "evaluate"},
}
ROOMS = {room: {f"cion_jax.{name}" for name in rooms} for room, rooms in ROOMS.items()}
ROOMS["cion_jax.gallery"] |= {"tfrecords_tools"}
ROOMS["cion_jax.report"] = {*ROOMS} - {"cion_jax.xla", "cion_jax.recipes"}
ROOMS["cion_jax.demo"] = ROOMS["cion_jax.report"] | {"cion_jax.report", "cion_jax.recipes"}
ROOMS["cion_jax"] = {*ROOMS} - {"tfrecords_tools"}
ROOMS["cion_jax.commands"] = {*ROOMS}
ROOMS["cion_jax.cli"] = {*ROOMS}
ROOMS["experiments"] = {*ROOMS}
PACKAGES = ("cion_jax", "tfrecords_tools", "experiments")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] != "cion_jax" else ".".join(parts[:2])


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            result |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in result if name.split(".")[0] in PACKAGES}


def room_of_file(path: Path) -> str:
    return room_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def imported_rooms() -> dict[str, set[str]]:
    """Each room, and the other rooms that its files import; CONTRIBUTING.md has a command that prints it."""
    result: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in FILES:
        room = room_of_file(path)
        result[room] |= {room_of(name) for name in imports(path)} - {room}
    return result


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of_file(path)
    backwards = {name for name in imports(path) if room_of(name) not in ROOMS[room] | FOUNDATIONS | {room}}
    assert not backwards, f"{room} must not import {', '.join(sorted(backwards))}"


def test_the_rooms_can_be_put_in_a_row() -> None:
    """The table itself allows no circle; neither do the imports."""
    assert [*TopologicalSorter(ROOMS).static_order()] and [*TopologicalSorter(imported_rooms()).static_order()]


def test_experiments_may_import_anything_and_nothing_imports_them() -> None:
    assert ROOMS["experiments"] == {*ROOMS} - {"experiments"}
    assert not [room for room, others in imported_rooms().items() if "experiments" in others]
    assert imported_rooms()["experiments"] >= {"cion_jax.run", "cion_jax.pretrain"}  # it does see imports


def test_contributing_has_every_room_and_prints_who_imports_whom() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    for room in ROOMS:
        name = room.removeprefix("cion_jax.")
        assert re.search(rf"\b{name}(/|\.py)", rows), f"CONTRIBUTING.md has no row for {room}"
    (command,) = re.findall(r"^    python (-c) \"(.*)\"$", text, re.MULTILINE)
    printed = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in printed.splitlines()] == [[a, *sorted(b)] for a, b in imported_rooms().items()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= (400 if path.is_relative_to(ROOT / "experiments") else 300)
    assert path.stem not in ("utils", "common", "helpers")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} does not fit a screen"


def is_private(name: str) -> bool:
    of_named_tuples = ("_asdict", "_fields", "_make", "_replace")
    return name.startswith("_") and not name.startswith("__") and name not in of_named_tuples


def private_names(code: str) -> set[str]:
    """Private names of ours that a test takes or patches, also in a script that it runs."""
    taken: set[str] = set()
    attributes: list[ast.Attribute] = []
    others = {"self", "cls"}  # names through which a test does not reach what is ours
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PACKAGES:
                taken |= {alias.name for alias in names if is_private(alias.name)}
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                others |= {(alias.asname or alias.name).split(".")[0] for alias in names}
            case ast.Attribute(attr=name) if is_private(name):
                attributes.append(node)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                taken |= {name} if is_private(name) else set()
            case ast.Constant(value=str(text)) if text.count("cion_jax."):
                taken |= set(re.findall(r"\._[a-z]\w*", text))
    return taken | {name for name in map(ast.unparse, attributes) if name.split(".")[0] not in others}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_tests_stay_small_and_take_public_names(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert not private_names(text)


@pytest.mark.parametrize("module", ["cion_jax", "cion_jax.cli", "cion_jax.data.pipeline", "tfrecords_tools.commands"])
def test_importing_wakes_neither_tensorflow_nor_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'torch')))"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_top_level_is_the_agreed_one() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folders = {name.split("/")[0] for name in listed.stdout.splitlines() if "/" in name}
    assert folders <= {"cion_jax", "experiments", "tfrecords_tools", "tests", "docs", ".ci", ".github"}


def test_the_zoo_can_be_read() -> None:
    """A chapter is at most 300 lines, the ten families together below 2,000."""
    families = ["resnet", "convnext", "edgenext", "ghostnet", "repvit", "fastvit", "vit", "swin", "volo"]
    lines = [(ROOT / "cion_jax" / "models" / f"{name}.py").read_text().count("\n") for name in families]
    assert max(lines) <= 300 and sum(lines) < 2000
