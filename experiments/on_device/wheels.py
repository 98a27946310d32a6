"""Downloads what a machine with JAX and PyTorch, but without a network, lacks of what this package needs.

python experiments/on_device/wheels.py            # into .whl/, for Python 3.12 on x86-64
"""

import subprocess
import sys
from pathlib import Path

#: Packages that such a machine has not; their own needs it has, or they stand here too.
MISSING = (
    "tyro", "typeguard", "docstring-parser", "grain", "array-record", "simplejpeg", "tensorboardX", "google-crc32c",
    "importlib_resources", "etils", "portpicker",
)  # fmt: skip
#: Kinds of Linux that wheels are offered for; pip takes each by its very name.
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
#: What may be carried along, in MiB.
LIMIT = 60
FOLDER = Path(__file__).parents[2] / ".whl"


def main() -> None:
    """Fill the folder, and say how large it is."""
    offered = [option for name in PLATFORMS for option in ("--platform", f"{name}_x86_64")]
    python = ["--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.whl"):
        old.unlink()  # of two versions of a package pip would install neither
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "-d", FOLDER, *python, *offered, *MISSING], check=True
    )
    size = sum(wheel.stat().st_size for wheel in FOLDER.glob("*.whl")) / 2**20
    print(f"{len(MISSING)} wheels, {size:.1f} MiB, in {FOLDER}")
    if size > LIMIT:
        sys.exit(f"wheels: more than {LIMIT} MiB cannot be carried along; leave something out of MISSING")


if __name__ == "__main__":
    main()
