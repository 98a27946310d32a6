"""Devices that are not there, for which XLA compiles all the same: TPU slices and GPUs by name, such as v5e:4x4.

For TPUs the compiler is in libtpu (the extra `tpu`). For GPUs it is in JAX's CUDA plugin and wants NVIDIA's compiler of
PTX beside it; cuDNN's algorithms are not tuned without the device.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

import jax

from cion_jax.errors import UserError


class _Gpu(NamedTuple):
    """What XLA wants to know of a GPU that is not there."""

    name: str
    bandwidth: int
    memory: int

    def description(self) -> str:
        """As XLA's GpuTargetConfigProto in text: a Hopper with 132 multiprocessors."""
        return f"""
            gpu_device_info {{
              cuda_compute_capability {{ major: 9 minor: 0 }}
              core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
              threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
              shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              l2_cache_size: 52428800 memory_bandwidth: {self.bandwidth} device_memory_size: {self.memory}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 8 }}
            device_description_str: "{self.name}"
        """


GPUS = {
    "h100": _Gpu("NVIDIA H100 80GB HBM3", 3_352_320_000_000, 84_978_434_048),
    "h200": _Gpu("NVIDIA H200", 4_800_000_000_000, 150_000_000_000),
}
TPUS = ("v4", "v5e", "v5p", "v6e")
EXAMPLES = "v5e:4x4, v5p:2x2x2 or h100:1x1x8"


def absent_devices(name: str) -> list[jax.Device]:
    """The devices of a name such as v5e:4x4 (TPU chips in a slice) or h100:1x1x8 (slices, hosts, GPUs of a host).

    Call it before JAX has looked for devices: JAX is kept from looking for those of the TPU itself.
    """
    kind, _, shape = name.partition(":")
    if not re.fullmatch(r"\d+(x\d+)+", shape) or kind not in {*TPUS, *GPUS}:
        raise UserError(
            f"no devices are called {name!r}; give {EXAMPLES}: one of {', '.join([*TPUS, *GPUS])}, and its shape"
        )
    jax.config.update("jax_platforms", "cpu")
    return _gpus(name, GPUS[kind], shape) if kind in GPUS else _tpus(name)


def _tpus(name: str) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"{name}: the compiler for TPUs is not installed; pip install 'cion-jax[tpu]'")
    # What libtpu asks of the machine that it believes to be on, and need not know to compile.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    return _topology(name, name, "tpu")


def _gpus(name: str, gpu: _Gpu, shape: str) -> list[jax.Device]:
    candidates = [folder / name for folder in _folders("nvidia") for name in ("cu13", "cuda_nvcc")]
    compilers = [folder for folder in candidates if (folder / "bin/ptxas").exists()]
    if not compilers or not _folders("jax_plugins"):
        raise UserError(
            f"{name}: the compiler for GPUs is not installed; pip install 'cion-jax[cuda13]', or its parts alone: pip "
            "install --no-deps jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt"
        )
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_cuda_data_dir={compilers[0]}".strip()
    os.environ["PATH"] += f"{os.pathsep}{compilers[0] / 'bin'}"
    return _topology(name, "", "cuda", topology=shape, target_config=gpu.description())


def _folders(package: str) -> list[Path]:
    """Where the parts of a package lie that several distributions share."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _topology(name: str, slice_name: str, platform: str, **options: str) -> list[jax.Device]:
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(slice_name, platform, **options).devices)
    except Exception as error:  # the plugin's own kinds of errors, of which JAX makes various
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{name}: XLA knows no such devices ({reason}); give {EXAMPLES}") from None
