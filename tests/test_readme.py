"""Every code block of README is run: by these tests, or word for word by .ci/run, which installs what it names."""

import re
import shlex
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from cion_jax import people
from cion_jax.cli import main
from cion_jax.config import Writing
from cion_jax.data.writer import write_dataset
from cion_jax.recipes import RECIPES
from cion_jax.run import fit
from sources import Blocks
from tiny import SETTINGS
from tiny_pretrain import stand_in
from videos import BLUE, RED, pictures, write_mot, write_video

pytestmark = [pytest.mark.xdist_group("finetuning"), pytest.mark.slow]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?:^    [^\n]*\n)+|^```python\n.*?^```\n", README, re.MULTILINE | re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS if block.startswith("    ") for line in block.splitlines()]
#: What installs is run by .ci/run, and what heads a table by the suite that wrote it.
INSTALLS = ("pip install",)
MEASURED = ("cion demo cion-demo --seed",)
#: What makes a command short.
SHORT = {
    "people": "--boxes boxes.txt",
    "search": "--threshold 0.5",
    "finetune": "--epochs 1 --epoch-steps 2 --batch 8 --instances 4 --image-size 32 16 --size 32 16 --pad 2 "
    "--validation 0.3 --precision float32",
}


@pytest.fixture
def folder(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What README's commands are given, beside small settings by the names that they use."""
    stand_in(monkeypatch)
    tiny = replace(SETTINGS, epochs=2, epoch_steps=2, instances=(2,), stages=(0,), relabel=(1,))
    for name in ("people", "small", "resnet50_ibn"):
        monkeypatch.setitem(RECIPES, name, tiny)
    monkeypatch.setattr(people, "run_command", main)
    # what a batch needs is compiled, and tested, elsewhere
    monkeypatch.setattr(fit, "memory_limit", lambda _: 4e7)
    monkeypatch.setattr(fit, "fitting_step", lambda method, *_: (method, None, []))
    monkeypatch.setattr(fit, "memory", lambda *_: SimpleNamespace(fits=lambda _: 16))
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "street.mp4", pictures((RED, BLUE), 60))
    write_mot(tmp_path / "boxes.txt", (RED, BLUE), 60)
    write_dataset(tmp_path / "LABELLED", {"train": Blocks(200)}, Writing(workers=1))
    write_dataset(
        tmp_path / "TESTSET", {"query": Blocks(20, seed=1), "gallery": Blocks(60, seed=2)}, Writing(workers=1)
    )
    assert main(["data", "export", str(dataset), "TRACKLETS"]) == 0
    return tmp_path


def test_its_commands_run(folder: Path) -> None:
    """In their order, each with what those before it have left."""
    lines = [line for line in LINES if not line.startswith(INSTALLS + MEASURED)]
    assert len(lines) == 12 and all(line.startswith("cion ") for line in lines)
    for line in lines:
        words = shlex.split(line)[1:]
        if words[:3] == ["pretrain", "resnet50_ibn", "DATA"]:
            words[3] = "ANOTHER"  # RUN has other settings by now
        if "somebody.jpg" in words:
            picture = next((folder / "TRACKLETS").rglob("*.*g"))
            (folder / "somebody.jpg").write_bytes(picture.read_bytes())
        is_without_compiler = "v5e:4x4" in words and find_spec("libtpu") is None
        assert main([*words, *SHORT.get(words[0], "").split()]) == int(is_without_compiler), line
    for made in ("OUT/people.html", "OUT/run/report.html", "people.png", "RUN/report.html", "weights.pth"):
        assert (folder / made).stat().st_size > 1000


def test_its_lines_for_pytorch_are_those_of_the_page_that_is_run() -> None:
    (block,) = (block for block in BLOCKS if block.startswith("```python"))
    page = (ROOT / "docs" / "pytorch.md").read_text()
    for line in block.splitlines()[1:-1]:
        assert line.split("  #")[0] in page


def test_it_stays_short_and_its_links_lead_somewhere() -> None:
    assert README.count("\n") <= 150
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
