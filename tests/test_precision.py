"""What is called float32 is multiplied as float32, also where the hardware would rather not."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.config import Bnneck, ClusterContrast, Finetuning, Precision, Supervised
from cion_jax.data.augment import multi_crop
from cion_jax.evaluate.embed import embedder
from cion_jax.models.zoo import ZOO, backbone
from cion_jax.run.finetuning import finetuning
from cion_jax.run.method import Method, lower_step
from cion_jax.run.pretraining import pretraining
from cion_jax.run.sharding import make_mesh
from finetuned import FAMILY as TOYS
from finetuned import TOY
from tiny import FAMILY, SETTINGS

#: How products of a program are to be done that ask for nothing of their own, by what the network computes in.
ASKED = {"float32": "HIGHEST", "tensorfloat32": "HIGH", "bfloat16": "DEFAULT"}
PRODUCT = re.compile(
    r"stablehlo\.(dot_general|convolution)\b.*?(?:precision = \[|<precision )(\w+).*: \(tensor<[^>]*x(\w+)>,"
)


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is set from outside, as these tests usually have it."""
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    monkeypatch.setitem(ZOO, TOY, TOYS)
    with jax.default_matmul_precision("default"):
        yield


def products(program: str) -> Counter[tuple[str, str, str]]:
    """Operation, precision and type of operands of all products in a program; THREE are those of three in bfloat16."""
    program = re.sub(r"precision = \[DEFAULT(?=.*num_primitive_operations = 3)", "precision = [THREE", program)
    result = Counter(PRODUCT.findall(program))
    assert result.total() == len(re.findall(r"stablehlo\.(?:dot_general|convolution)\b", program))
    return result


def of_three(program: str) -> int:
    return sum(count for (_, precision, _), count in products(program).items() if precision == "THREE")


def lowered(function: Callable, platform: str, *inputs: object) -> str:
    return jax.jit(function).trace(*inputs).lower(lowering_platforms=(platform,)).as_text()


def step_on(platform: str, make: Callable[[list[Any]], Method]) -> str:
    method = make([SimpleNamespace(platform=platform)])
    return lower_step(method, 2, make_mesh(1, 1), platform).as_text()


@pytest.mark.parametrize(
    ("precision", "platform"), [("float32", "tpu"), ("float32", "cuda"), ("tensorfloat32", "cuda"), ("bfloat16", "tpu")]
)
def test_pretraining_multiplies_as_it_is_told(precision: Precision, platform: str) -> None:
    settings = replace(SETTINGS, precision=precision)
    program = step_on(platform, lambda devices: pretraining(settings, devices))
    images = jax.ShapeDtypeStruct((settings.batch, *settings.image_size, 3), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    crops = lowered(lambda *inputs: multi_crop(*inputs, settings.crops, jnp.float32), platform, images, key)
    check(program, precision, of_three(crops))


def check(program: str, precision: Precision, own: int) -> None:
    """All products of a program are done as a precision asks for, but for those of crops."""
    found = products(program)
    kinds = {(operation, precision) for operation, precision, _ in found}
    asked = ASKED[precision]
    assert kinds == {("convolution", asked), ("dot_general", asked), ("dot_general", "THREE")}
    assert of_three(program) == own > 0
    assert ("bf16" in {operand for *_, operand in found}) == (precision == "bfloat16")


@pytest.mark.parametrize(
    ("usual", "precision"),
    [(Bnneck(), "float32"), (ClusterContrast(), "tensorfloat32")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_fine_tuning_multiplies_as_it_is_told(usual: Finetuning, precision: Precision, dataset: Path) -> None:
    size = (32, 16)
    pictures = replace(usual.augmentation, size=size, pad=2)
    shape: dict[str, Any] = {
        "batch": 16,
        "instances": 2,
        "image_size": size,
        "augmentation": pictures,
        "precision": precision,
    }
    if isinstance(usual, Supervised):
        shape["validation"] = 0.0
    settings = replace(usual, backbone=TOY, **shape)
    program = step_on("cuda", lambda devices: finetuning(settings, dataset, devices))
    kinds = {(operation, precision) for operation, precision, _ in products(program)}
    of_network = {("convolution", ASKED[precision]), ("dot_general", ASKED[precision])}
    assert kinds == of_network | {("dot_general", "THREE"), ("dot_general", "HIGHEST")}  # of crops, and of the loss


def test_embedding_multiplies_as_it_is_told_whatever_is_set_outside() -> None:
    model = backbone(TOY, platform="tpu", image_size=(32, 16))
    variables = model.init(jax.random.key(0))
    pixels = jax.ShapeDtypeStruct((2, 32, 16, 3), np.uint8)
    for outside in ("default", "highest"):
        for precision, asked in ASKED.items():
            with jax.default_matmul_precision(outside):
                found = products(lowered(embedder(model, variables, precision=precision), "tpu", pixels))
            expected = outside.upper() if precision == "bfloat16" else asked
            assert {each for _, each, _ in found} == {expected}
            assert {each for *_, each in found} == {"bf16" if precision == "bfloat16" else "f32"}
