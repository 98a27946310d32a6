"""Weights under timm's names, where these are not the names that our backbones have from their original projects.

ConvNeXt, EdgeNeXt, FastViT and Swin are renamed: with the same weights timm's networks and ours give the same features.
The networks that timm calls RepViT and ViT compute something else than ours, and so do its Swins with other windows.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from cion_jax.errors import UserError
from cion_jax.models.swin import WINDOW
from cion_jax.weights.arrays import State

#: Patterns in timm's keys, and what stands in their place in ours; applied in turn.
_Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

_CONVNEXT: _Rules = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc", ".pwconv"),
    (r"^head\.norm\.", "norm."),
)
_FASTVIT: _Rules = (
    (r"^stem\.", "patch_embed."),
    (r"^stages\.(\d+)\.downsample\.", lambda found: f"network.{2 * int(found[1]) - 1}."),
    (r"^stages\.(\d+)\.pos_emb\.pos_enc\.", lambda found: f"network.{2 * int(found[1])}.pe."),
    (r"^stages\.(\d+)\.blocks\.", lambda found: f"network.{2 * int(found[1])}."),
    (r"^final_conv\.", "conv_exp."),
    (r"\.conv_kxk\.", ".rbr_conv."),
    (r"\.conv_scale\.", ".rbr_scale."),
    (r"\.identity\.", ".rbr_skip."),
    (r"\.large_conv\.", ".lkb_origin."),
    (r"\.mlp\.", ".convffn."),
    (r"\.se\.fc1\.", ".se.reduce."),
    (r"\.se\.fc2\.", ".se.expand."),
    (r"(layer_scale(_\d)?)\.gamma$", r"\1"),
)
#: Positions, which a stage with attention begins with, are a place of their own.
_WITH_ATTENTION: _Rules = ((r"^stages\.3\.blocks\.", "network.7."),)
_SWIN: _Rules = ((r"^norm\.", "norm3."),)
#: A merging begins a stage there; in ours it ends the stage before.
_MERGING: _Rules = ((r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample."),)

#: A key that only timm's names have, by family.
_MARKS = {
    "ConvNeXt": "stem.0.weight",
    "EdgeNeXt": "stem.0.weight",
    "FastViT": "stem.0.conv_kxk.0.conv.weight",
    "RepViT": "stem.conv1.c.weight",
    "Swin": "norm.weight",
    "ViT": "patch_embed.proj.weight",
}
#: What differs where timm's network of the same name is another one.
_OTHERS = {
    "RepViT": "its squeeze-and-excitation gates are sigmoids, those of ours are hard sigmoids",
    "Swin": f"not all of its windows are {WINDOW}x{WINDOW}",
    "ViT": "its stem is a single convolution, ours has three with norms before it (--allow 'patch_embed.*' leaves the "
    "stem as initialised, and takes the blocks)",
}


def is_timm(state: Mapping[str, np.ndarray], family: str) -> bool:
    """Whether the keys of a backbone's state_dict are timm's and not ours."""
    return family in _MARKS and _MARKS[family] in state and "patch_embed.conv.0.weight" not in state


def translated(state: Mapping[str, np.ndarray], family: str) -> tuple[State, list[str]]:
    """A state_dict under our names, and a line for what one should know of it; timm's RepViT and Swins with other
    windows are refused.

    Args:
        state: A state_dict of a backbone, perhaps with a classifier.
        family: That of the backbone.
    """
    if family == "ResNet":
        return dict(state), _strides(state)
    if not is_timm(state, family):
        return dict(state), []
    match family:
        case "RepViT":
            raise UserError(variant(family))
        case "ViT":
            return dict(state), [variant(family)]
        case "Swin":
            return _swin(state)
        case "FastViT":
            with_attention = any(".pos_emb." in key for key in state)
            return _renamed(state, (_WITH_ATTENTION if with_attention else ()) + _FASTVIT), []
        case _:
            return _renamed(state, _CONVNEXT), []


def variant(family: str) -> str:
    """The line that says why timm's network is another one."""
    why = _OTHERS.get(family)
    return "this is timm's variant, which computes something else" + (f": {why}" if why else "")


def _strides(state: Mapping[str, np.ndarray]) -> list[str]:
    """What a ResNet with a classifier, so not one of re-identification, was made for."""
    if not any(key.startswith("fc.") for key in state):
        return []
    return [
        "the last stage of ResNets has stride 1 here, as usual in re-identification, in torchvision and timm 2: "
        "features there are others, with the same weights"
    ]


def _swin(state: Mapping[str, np.ndarray]) -> tuple[State, list[str]]:
    tables = [len(value) for key, value in state.items() if key.endswith("relative_position_bias_table")]
    if any(rows != (2 * WINDOW - 1) ** 2 for rows in tables):
        raise UserError(variant("Swin"))
    begins = any(key.startswith("layers.3.downsample.") for key in state)
    kept = {key: value for key, value in state.items() if not key.endswith(".attn_mask")}  # follow from the model
    return _renamed(kept, (_MERGING if begins else ()) + _SWIN), [
        "windows are shifted here on maps of a single window too, as in timm's Swin with always_partition=True"
    ]


def _renamed(state: Mapping[str, np.ndarray], rules: _Rules) -> State:
    renamed = {}
    for key, value in state.items():
        for pattern, ours in rules:
            key = re.sub(pattern, ours, key)
        renamed[key] = value
    return renamed
