"""Importers: each reads a dataset layout and returns its splits as sources for the record writer."""

from collections.abc import Callable

from cion_jax.data.source import Source
from tfrecords_tools.importers.cional import cional
from tfrecords_tools.importers.cuhk03np import cuhk03np
from tfrecords_tools.importers.dukemtmc import dukemtmc
from tfrecords_tools.importers.folders import folders
from tfrecords_tools.importers.lupnl import lupnl
from tfrecords_tools.importers.manifest import manifest
from tfrecords_tools.importers.market1501 import market1501
from tfrecords_tools.importers.mot import mot
from tfrecords_tools.importers.msmt17 import msmt17

#: What `cion data import KIND` can be asked for. Each takes the source path and keyword options.
IMPORTERS: dict[str, Callable[..., dict[str, Source]]] = {
    importer.__name__: importer
    for importer in (folders, lupnl, cional, mot, market1501, msmt17, cuhk03np, dukemtmc, manifest)
}
