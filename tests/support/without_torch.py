"""To be imported before TensorBoard's writer, which would take seconds to import PyTorch where it is there."""

import sys
from importlib.abc import MetaPathFinder


class WithoutTorch(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name == "torch":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, WithoutTorch())
