"""Pre-train person re-identification backbones from unlabelled video tracklets, in JAX.

The names below are what most programs need; docs/api.md has an example of each. A name is imported when it is first
used, so that `import cion_jax` wakes neither JAX nor Flax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cion_jax.config import Pretraining
    from cion_jax.data.records import Records
    from cion_jax.denoise.denoise import denoise as denoise_tracklets
    from cion_jax.errors import UserError
    from cion_jax.evaluate.distances import cosine
    from cion_jax.evaluate.embed import ImageFolder
    from cion_jax.evaluate.embed import embed_all as embed
    from cion_jax.evaluate.retrieval import scores, search
    from cion_jax.gallery.answers import ask as ask_index
    from cion_jax.gallery.rows import make_rows as index_rows
    from cion_jax.gallery.store import Gallery as Index
    from cion_jax.gallery.store import read as load_index
    from cion_jax.gallery.store import save as save_index
    from cion_jax.models.zoo import backbone
    from cion_jax.weights.file import Weights
    from cion_jax.weights.file import load as load_weights
    from cion_jax.weights.file import save as save_weights

__version__ = "0.2.0"

__all__ = [
    "ImageFolder",
    "Index",
    "Pretraining",
    "Records",
    "UserError",
    "Weights",
    "ask_index",
    "backbone",
    "cosine",
    "denoise_tracklets",
    "embed",
    "index_rows",
    "load_index",
    "load_weights",
    "save_index",
    "save_weights",
    "scores",
    "search",
]

#: The module of each name, and its name there. Type checkers read the same above.
_WHERE = {
    "ImageFolder": ("cion_jax.evaluate.embed", "ImageFolder"),
    "Index": ("cion_jax.gallery.store", "Gallery"),
    "Pretraining": ("cion_jax.config", "Pretraining"),
    "Records": ("cion_jax.data.records", "Records"),
    "UserError": ("cion_jax.errors", "UserError"),
    "Weights": ("cion_jax.weights.file", "Weights"),
    "ask_index": ("cion_jax.gallery.answers", "ask"),
    "backbone": ("cion_jax.models.zoo", "backbone"),
    "cosine": ("cion_jax.evaluate.distances", "cosine"),
    "denoise_tracklets": ("cion_jax.denoise.denoise", "denoise"),  # cion_jax.denoise is a package
    "embed": ("cion_jax.evaluate.embed", "embed_all"),
    "index_rows": ("cion_jax.gallery.rows", "make_rows"),
    "load_index": ("cion_jax.gallery.store", "read"),
    "load_weights": ("cion_jax.weights.file", "load"),
    "save_index": ("cion_jax.gallery.store", "save"),
    "save_weights": ("cion_jax.weights.file", "save"),
    "scores": ("cion_jax.evaluate.retrieval", "scores"),
    "search": ("cion_jax.evaluate.retrieval", "search"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
