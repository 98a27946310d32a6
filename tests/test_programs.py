"""Compiled programs as they are read: what they move, multiply and exchange, and for what."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from cion_jax.cli import main
from cion_jax.errors import UserError
from cion_jax.models.zoo import ZOO
from cion_jax.programs import target
from cion_jax.programs.account import account, described, part_of
from cion_jax.programs.cost import products, traffic
from cion_jax.programs.devices import Sheet, sheet_of
from cion_jax.programs.hlo import Program, arrays_in
from cion_jax.run import forecast as module
from cion_jax.run.forecast import fitting_step, memory_limit
from cion_jax.run.pretraining import pretraining
from cion_jax.run.sharding import make_mesh
from tiny import FAMILY, SETTINGS

#: As XLA prints a step for a TPU, cut short: a loop of three turns whose counter stands in its condition, an array on
#: the chip, a copy that runs beside the rest, a fused product of matrices, and an exchange.
TPU_TEXT = """\
HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_layout={()}

FileNames
1 "/home/me/train.py"
2 "/site-packages/cion_jax/pretrain/step.py"

FunctionNames
1 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=20 end_line=20 column=6 end_column=6}
2 {file_name_id=2 function_name_id=1 line=101 end_line=101 column=6 end_column=6}
3 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=6 end_column=6}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}
3 {file_location_id=3 parent_frame_id=2}

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0:T(8,128)} add(%x, %x), backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %three), direction=LT
}

%fused (a: bf16[8,128], b: bf16[128,64]) -> bf16[8,64] {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[128,64]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %dot = bf16[8,64]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf
}

ENTRY %main (s: f32[8,128], a: bf16[8,128], b: bf16[128,64]) -> (f32[8,128], bf16[8,64]) {
  %s = f32[8,128]{1,0:T(8,128)} parameter(0)
  %a.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  %b.1 = bf16[128,64]{1,0:T(8,128)(2,1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %s)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %near = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[8,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%a.1)
  %here = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%near)
  %out = bf16[8,64]{1,0:T(8,128)(2,1)} fusion(%here, %b.1), kind=kOutput, calls=%fused, \
metadata={op_name="jit(step)/transpose(jvp(student))/fc/dot_general" stack_frame_id=3}, \
backend_config={"estimated_cycles":"1200"}
  %sum = bf16[8,64]{1,0:T(8,128)(2,1)} all-reduce(%out), to_apply=%add
  %new = f32[8,128]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  ROOT %result = (f32[8,128]{1,0:T(8,128)}, bf16[8,64]{1,0:T(8,128)(2,1)}) tuple(%new, %sum)
}
"""
V5E = sheet_of("TPU v5 lite")
assert V5E is not None


class Compiled(NamedTuple):
    """What JAX would return."""

    text: str

    def as_text(self) -> str:
        return self.text

    def memory_analysis(self) -> Any:
        class Sizes(NamedTuple):
            argument_size_in_bytes: int = 7
            output_size_in_bytes: int = 5
            alias_size_in_bytes: int = 4
            temp_size_in_bytes: int = 20
            generated_code_size_in_bytes: int = 3

        return Sizes()


def test_arrays_take_whole_tiles_and_cost_nothing_on_the_chip() -> None:
    (plain,) = arrays_in("bf16[8,100,64]{2,1,0:T(8,128)(2,1)}")
    assert plain.bytes == plain.traffic == 8 * 104 * 128 * 2
    turned, near = arrays_in("(f32[3,5]{0,1:T(4,128)}, s32[7]{0:T(128)S(1)})")
    assert turned.bytes == 8 * 128 * 4  # the first axis is the inner one
    assert (near.bytes, near.traffic) == (128 * 4, 0)
    scalar, flag = arrays_in("(f32[], pred[4])")
    assert (scalar.bytes, flag.bytes) == (4, 4)


def test_an_account_of_a_step_for_a_tpu() -> None:
    read = account(Compiled(TPU_TEXT), V5E, state_leaves=1)
    assert read.memory == {"arguments": 7, "results beside them": 1, "temporaries": 20, "code": 3}
    assert read.is_donated and not account(Compiled(TPU_TEXT), V5E, state_leaves=2).is_donated
    assert read.is_estimated and read.seconds == pytest.approx((3 * 100 + 1200) / V5E.clock)
    assert read.collectives == {"all-reduce": (1, 8 * 128 * 2)}
    assert read.operand_types() == {"bf16": (1, 2 * 8 * 64 * 128)}
    (product,) = [kernel for kernel in read.kernels if kernel.products]
    assert (product.part, product.sort) == ("student, backward", "convolutions and products")
    assert (
        product.source == "pretrain/step.py:101"
    )  # the innermost line of the package, not that of its caller's caller
    half, whole = 8 * 128 * 2, 8 * 128 * 4
    # three additions; a copy read; the second factor and the product, padded to 128 columns; the exchange
    assert read.bytes == 3 * 3 * whole + half + (128 * 128 * 2 + half) + 2 * half
    text = "\n".join(described(read, V5E))
    assert "| all-reduce | 1 | 0.0 |" in text and "written where the old one was" in text


def test_kernels_of_a_tpu_without_an_estimate_take_the_time_of_their_bytes() -> None:
    """Which nothing does that runs beside others, such as the copy, or between devices."""
    text = TPU_TEXT.replace('add(%x, %x), backend_config={"estimated_cycles":"100"}', "pad(%x, %x)")
    read = account(Compiled(text), V5E)
    assert read.seconds == pytest.approx(3 * 3 * 8 * 128 * 4 / V5E.bandwidth + 1200 / V5E.clock)


def test_of_branches_the_longest_counts() -> None:
    """One of them runs; here one of a loop's turn, and one that gives back what it was given."""
    short = """%short (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  ROOT %same = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
}

"""
    for branches in ("%short, %body", "%body, %short"):
        text = TPU_TEXT.replace("while(%start), condition=%condition, body=%body", "CONDITION")
        text = text.replace("CONDITION", f"conditional(%start), branch_computations={{{branches}}}")
        read = account(Compiled(text.replace("%fused (", f"{short}%fused (")), V5E)
        assert read.seconds == pytest.approx((100 + 1200) / V5E.clock)


def test_what_a_kernel_is_for() -> None:
    assert part_of("jit(step)/crops/vmap(vmap())/mul") == "crops"
    assert part_of("jit(step)/jvp(student)/ResNet/conv1") == "student"
    assert part_of("jit(step)/transpose(jvp(loss))/dot_general") == "loss, backward"
    assert part_of("copy.31") == "other"


@pytest.mark.parametrize(
    ("stride", "edge", "groups"), [(1, 1, 1), (2, 1, 1), (2, 3, 1), (1, 0, 2)], ids=["same", "stride", "wide", "groups"]
)
def test_a_convolution_and_its_gradients_multiply_equally_often(stride: int, edge: int, groups: int) -> None:
    """Each product of an input and a weight has one counterpart in each gradient; edges and gaps have none."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((edge, edge), (edge, edge)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    x, kernel = jnp.ones((2, 9, 6, 4)), jnp.ones((3, 3, 4 // groups, 6))
    wanted = 2 * int(convolve(x, kernel).sum())  # of ones: how many products there are
    cotangent = convolve(x, kernel)
    for argument in (None, 0, 1):
        function: Any = convolve
        if argument is not None:
            function = lambda x, kernel, argument=argument: jax.vjp(convolve, x, kernel)[1](cotangent)[argument]  # noqa: E731
        program = Program(jax.jit(function).lower(x, kernel).compile().as_text())
        kernels = list(program.kernels())
        assert sum(each.flops for of, kernel, _ in kernels for each in products(program, of, kernel)) == wanted


def test_bytes_are_those_of_every_turn_of_a_loop() -> None:
    """A loop that cuts rows out of a table, and makes rows of another, touches each of the tables once."""
    table, weights = jnp.ones((64, 1024)), jnp.ones((1024, 1024))

    def loop(table: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.map(lambda number: jnp.tanh(table[number] @ weights), jnp.arange(64))

    program = jax.jit(loop).lower(table, weights).compile()
    least = 2 * table.nbytes + 64 * weights.nbytes
    assert least <= traffic(program.as_text() or "") < 1.02 * least
    straight = jax.jit(lambda table, weights: jnp.tanh(table @ weights)).lower(table, weights).compile()
    counted = (straight.cost_analysis() or {})["bytes accessed"]
    assert traffic(straight.as_text() or "") == pytest.approx(counted, rel=1e-3)


def test_float32_takes_longer_at_full_precision() -> None:
    tpu, gpu = Sheet(100, 1, 1, clock=1), Sheet(100, 1, 1)
    text = TPU_TEXT.replace("bf16", "f32")
    exact = text.replace("dim_labels", "operand_precision={highest,highest}, dim_labels")

    def seconds(text: str, sheet: Sheet) -> float:
        kernels = account(Compiled(text), sheet).kernels
        return next(sheet.seconds(product) for kernel in kernels for product in kernel.products)

    assert seconds(exact, tpu) == 6 * seconds(text, tpu) == 6 * seconds(TPU_TEXT, tpu)
    assert seconds(exact, gpu) > seconds(text, gpu) > seconds(TPU_TEXT, gpu)
    three = text.replace("dim_labels", "operand_precision={high,high}, dim_labels")
    on_gpu = text.replace("dim_labels", "algorithm=dot_bf16_bf16_f32_x3, dim_labels")
    assert seconds(three, tpu) == 3 * seconds(text, tpu)
    assert seconds(exact, gpu) > seconds(on_gpu, gpu) == 3 * seconds(TPU_TEXT, gpu)


@pytest.mark.parametrize("name", ["v5e", "v5e:", "v5e:four", "v9:2x2", "rtx:1x1x1"])
def test_devices_that_nobody_knows_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"no devices are called .*v5e:4x4"):
        target.absent_devices(name)


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x2", "tpu"), ("h100:1x1x8", "cuda13")])
def test_a_compiler_that_is_not_installed_is_named(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"{name}: .*pip install 'cion-jax\[{extra}\]'"):
        target.absent_devices(name)


def test_absent_devices_are_for_dry_runs(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["pretrain", "debug", "--data", str(dataset), "--out", str(tmp_path / "run")]
    assert main([*run, "--for", "v5e:2x2"]) == 1
    assert "--for v5e:2x2: only --dry-run" in capsys.readouterr().err


def test_a_batch_that_does_not_fit_is_halved_until_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    method = pretraining(replace(SETTINGS, batch=64))

    def compile_small(method: Any, *_: Any) -> str:
        if method.settings.batch > 20:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20.00G of 15.75G hbm. Exceeded by 4.25G.")
        return "a program"

    monkeypatch.setattr(module, "compiled_step", compile_small)
    fitting, program, lines = fitting_step(method, 4, make_mesh(1, 1))
    assert (fitting.settings.batch, program) == (16, "a program")
    assert lines[::2] == [f"A batch of {n} images does not fit: Used 20.00G of 15.75G hbm." for n in (64, 32)]


def test_the_memory_of_a_device_that_is_not_there_is_its_sheets() -> None:
    class Absent(NamedTuple):
        device_kind: str

    tpu, gpu = Absent("TPU v5 lite"), Absent("NVIDIA H100 80GB HBM3")
    assert [memory_limit(each) for each in (tpu, gpu)] == [16 * 10**9, 60 * 10**9]  # type: ignore[arg-type]
