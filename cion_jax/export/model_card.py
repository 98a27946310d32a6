"""A model card: what somebody who meets weights must know of them, as the Markdown page that model hubs show."""

from collections.abc import Mapping
from typing import Any

_TAGS = ("person-re-identification", "reid", "image-retrieval", "jax")


def model_card(noted: Mapping[str, Any], origin: Mapping[str, str], place: str = "hf://OWNER/NAME") -> str:
    """The page.

    Args:
        noted: What `export.program.card` says of the network, and its `neck`.
        origin: What is known of where the weights come from: `data` and `licence`.
        place: Where `cion pull` finds the weights.
    """
    return "\n".join([*_front(origin), "", *_what_it_is(noted), "", *_use(noted, place), "", *_origin(origin), ""])


def _front(origin: Mapping[str, str]) -> list[str]:
    """The fields that hubs read."""
    licence = [f"license: {origin['licence']}"] if "licence" in origin else []
    fields = ["library_name: cion-jax", "pipeline_tag: image-feature-extraction", "tags:"]
    return ["---", *licence, *fields, *(f"- {tag}" for tag in _TAGS), "---"]


def _what_it_is(noted: Mapping[str, Any]) -> list[str]:
    network = f"{noted['network']}{', fused' if noted['fused'] else ''}"
    method = noted["fine_tuned_by"]
    images, inside, out = noted["input"], noted["inside"], noted["output"]
    _, height, width, _ = images["shape"]
    rows = {
        "network": network,
        "fine-tuned by": method or "nothing, it is pre-trained",
        "neck": noted["neck"],
        "images": f"{height} x {width} pixels (height x width), {images['colours']}; {images['resize']}",
        "pixels": f"{inside['rule']}, mean {_numbers(inside['mean'])}, std {_numbers(inside['std'])}",
        "features": f"{out['shape'][1]} numbers; {out['rule']}",
        "weights, SHA-256": noted["weights_sha256"],
    }
    made = f"fine-tuned by {method} " if method else "pre-trained "
    return [
        f"# {network} for person re-identification",
        "",
        "Turns the picture of a person into a feature, by which the same person is found again in other pictures. "
        f"It was {made}with cion_jax, after CION (NeurIPS 2024, arXiv 2409.18569).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in rows.items()),
    ]


def _use(noted: Mapping[str, Any], place: str) -> list[str]:
    return [
        "## Use",
        "",
        f"    cion pull {place} ours.safetensors",
        "    cion embed ours.safetensors PHOTOS FEATURES",
        "    cion export ours.safetensors people.onnx --format onnx",
        "    cion export ours.safetensors weights.pth",
        "",
        "An ONNX file takes pixels from 0 to 255 and needs none of this. For PyTorch the table above says how pixels "
        "are prepared.",
    ]


def _origin(origin: Mapping[str, str]) -> list[str]:
    data = f"a dataset with the fingerprint `{origin['data']}`" if "data" in origin else "data that nobody has named"
    return [
        "## Training",
        "",
        f"Trained on {data}. _Say here which images these are, who is on them, and on what legal ground._",
        "",
        "## Scores",
        "",
        "_Put here what `cion evaluate` prints, with the name of the set; by group of people, `--groups`._",
        "",
        "## Limits",
        "",
        "Whoever searches for people with this processes personal data: see that you may. Scores in one place say "
        "little of another with other cameras, clothes and people, so measure in yours. Two similar features are a "
        "hint, and no proof of who somebody is.",
        "",
        "## Licence",
        "",
        origin.get("licence", "Not stated. Ask whoever made these weights before you use them."),
    ]


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
