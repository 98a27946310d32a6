"""The weights of a backbone are found in what people save: in dicts, under prefixes, beside a classifier."""

from pathlib import Path

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.errors import UserError
from cion_jax.weights.file import convert, load
from cion_jax.weights.foreign import read_state, write_state
from cion_jax.weights.state_dicts import choose, stripped, without_classifier
from cion_jax.weights.tensors import Storage, Tensor
from golden_weights import state
from weight_files import STATE, assert_same

ONE = Tensor(Storage("float32", "0", 1), 0, (1,), (1,))
NETWORK = {"conv.weight": ONE, "conv.bias": ONE}
OPTIMIZER = {"state": {0: {"exp_avg": ONE, "weight": ONE}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("name", ["net", "model_ema", "model_state_dict", "state_dict", "network"])
def test_the_only_state_dict_is_found_wherever_it_lies(name: str) -> None:
    assert choose({name: NETWORK}, None) == (NETWORK, [])
    assert choose({"epoch": 3, name: NETWORK, "optimizer": OPTIMIZER, "rng_state": ONE}, None) == (NETWORK, [])
    assert choose({"epoch": 3, "checkpoint": {"best": {name: NETWORK}}, "loss": {"center": ONE}}, None) == (NETWORK, [])


def test_a_bare_state_dict_is_taken() -> None:
    assert choose(NETWORK, None) == (NETWORK, [])
    assert choose({"x": ONE}, None) == ({"x": ONE}, [])


def test_a_key_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no state_dict 'model', it is one itself; leave --key out"):
        choose(NETWORK, "model")
    write_state(tmp_path / "w.safetensors", STATE)
    with pytest.raises(UserError, match=r"w\.safetensors: a safetensors file holds one state_dict"):
        read_state(tmp_path / "w.safetensors", "model")


def test_prefixes_without_an_end_are_taken_off_a_few_times() -> None:
    assert [*stripped({"model." * 100_000 + "w": np.ones(1)}, None)[0]] == ["model." * 99_996 + "w"]


def test_of_several_state_dicts_one_must_be_named() -> None:
    content = {"state_dict": NETWORK, "ema": {"module": dict(NETWORK), "decay": 0.9}}
    expected = r"holds 2 state_dicts: 'state_dict' \(2 keys\), 'ema.module' \(2 keys\); name one with --key"
    with pytest.raises(UserError, match=expected):
        choose(content, None)
    assert choose(content, "ema.module") == (NETWORK, [])
    with pytest.raises(UserError, match=r"no state_dict 'module', only 'state_dict' \(2 keys\), 'ema\.module'"):
        choose(content, "module")
    same = {"model": NETWORK, "best": NETWORK}
    assert choose(same, None) == (NETWORK, []), "one that stands in two places is one"


def test_a_training_checkpoint_gives_its_teacher() -> None:
    content = {"student": {"w.weight": ONE}, "teacher": NETWORK, "optimizer": OPTIMIZER}
    assert choose(content, None) == (NETWORK, [])
    assert choose(content, "student") == ({"w.weight": ONE}, [])


def test_what_is_no_tensor_is_left_out_with_a_line() -> None:
    tensors, notes = choose({**NETWORK, "epoch": 3, "names": ["a"]}, None)
    assert tensors == NETWORK
    assert notes == ["left out, for these are no tensors: 'epoch' (int), 'names' (list)"]


def test_dicts_that_stand_in_each_other_a_million_times_are_looked_at_once() -> None:
    inner: dict = {}
    for _ in range(4):
        inner = dict.fromkeys(map(str, range(1000)), inner)
    with pytest.raises(UserError, match="no tensor, so this is no state_dict"):
        choose(inner, None)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "base.", "_orig_mod.", "module.encoder_q.", "module._orig_mod.model.", "backbone."]
)
def test_prefixes_that_all_keys_have_are_taken_off(prefix: str) -> None:
    prefixed = {prefix + key: value for key, value in STATE.items()}
    assert stripped(prefixed, None) == (STATE, [])
    others = {"queue": np.zeros(3)}
    assert prefix == "module." or stripped(prefixed | others, None)[0].keys() != {*STATE, "queue"}, "not all have it"
    rest, notes = stripped(prefixed | others, prefix)
    assert rest == STATE and notes == [f"left out, for they do not begin with {prefix}: queue"]


def test_one_of_two_networks_is_named_by_its_prefix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As momentum contrast saves them."""
    own = state("resnet18")
    both = {f"module.encoder_{which}.{key}": value for which in "qk" for key, value in own.items()}
    write_state(tmp_path / "moco.pth", both | {"module.queue": np.zeros((4, 8), np.float32)})
    with pytest.raises(UserError, match=r"with --strip encoder_k\. or encoder_q\.$"):
        convert(tmp_path / "moco.pth", "resnet18")
    command = ["import", str(tmp_path / "moco.pth"), str(tmp_path / "ours.safetensors"), "--backbone=resnet18"]
    assert main([*command, "--strip=module.encoder_q."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "left out, for they do not begin with module.encoder_q.: module.encoder_k.conv1.weight, "
    )
    kernel = load(tmp_path / "ours.safetensors").variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, own["conv1.weight"].transpose(2, 3, 1, 0))
    with pytest.raises(UserError, match=r"no key begins with 'encoder\.'; there are module\.encoder_q\.conv1"):
        convert(tmp_path / "moco.pth", "resnet18", strip="encoder.")


@pytest.mark.parametrize(
    "key", ["fc.weight", "classifier.weight", "head.weight", "head.fc.weight", "head_dist.bias", "backbone.fc.bias"]
)
def test_classifiers_are_left_out_with_a_line(key: str) -> None:
    rest = {"backbone.conv.weight": np.ones(1)} if key.startswith("backbone") else {"conv.weight": np.ones(1)}
    assert without_classifier(rest | {key: np.ones(1)}) == (rest, [f"left out, the classifier: {key}"])


def test_prototypes_are_no_classes() -> None:
    head = {"backbone.conv.weight": np.ones(1), "head.mlp.0.weight": np.ones(1), "head.last_layer.weight_v": np.ones(1)}
    assert without_classifier(head) == (head, [])


def test_the_old_name_of_an_option_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(tmp_path / "w.pth", state("resnet18"), wrap="student")
    command = ["import", str(tmp_path / "w.pth"), str(tmp_path / "o.safetensors"), "--backbone=resnet18"]
    assert main([*command, "--part", "student"]) == 0
    assert "--part is called --key now" in capsys.readouterr().err
    assert_same(read_state(tmp_path / "w.pth", "student"), dict(state("resnet18")))
    assert stripped(STATE, None) == (STATE, [])
