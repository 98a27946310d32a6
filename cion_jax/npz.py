"""Arrays that others wrote: .npz and .npy are read without running what is pickled, and without filling the memory."""

import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from cion_jax.errors import UserError
from cion_jax.untrusted import check_is_file, open_file

#: A file may be unpacked to so many bytes, and to more if that is at most so many times its own size.
MAX_BYTES = 1 << 28
MAX_RATIO = 100


class Header(NamedTuple):
    """What a file says of an array before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_npz(
    path: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    expected: str = "an .npz",
    check: Callable[[Mapping[str, Header]], None] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of these names in an .npz; the optional ones only if they are there.

    Args:
        path: The file.
        needed: Names that must be there.
        optional: Names that may be there.
        expected: Tells a user whose file is not there what to name.
        check: Raises a UserError if the headers of these arrays are not what is wanted. Nothing larger has been read.
    """
    check_is_file(path, f"name {expected}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            if missing := set(needed) - set(members):
                raise UserError(f"{path}: has no {', '.join(sorted(missing))}; it has {', '.join(members)}")
            chosen = {name: members[name] for name in (*needed, *optional) if name in members}
            headers = {name: _header(archive, member) for name, member in chosen.items()}
            if check is not None:
                check(headers)
            size = sum(member.file_size for member in chosen.values())
            if size > max(MAX_BYTES, MAX_RATIO * path.stat().st_size):
                raise UserError(f"{path}: would unpack to {size / 1e9:,.1f} GB; if it must, write it with numpy.savez")
            return {name: _array(archive, member) for name, member in chosen.items()}
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile promise no more about damaged files
        why = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not an .npz of plain arrays ({why}); write it with numpy.savez") from None


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """The header of an array, which must claim as many bytes as the archive has for it."""
    with archive.open(member) as file:
        header = read_header(file)
        rest = member.file_size - file.tell()
    if header.nbytes != rest:
        raise ValueError(f"{member.filename} claims {header.nbytes:,} bytes and has {rest:,}")
    return header


def read_header(file: IO[bytes]) -> Header:
    """The header of the array that begins here; a ValueError for a damaged one, and for one of pickled objects."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with warnings.catch_warnings(action="error"):  # numpy warns where it mends a header
            shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy promises no more about damaged headers
        raise ValueError(f"the header of an array is damaged: {error}") from None
    if dtype.hasobject:
        raise ValueError("pickled objects; allow_pickle=False")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"a shape of {shape}")
    return Header(shape, dtype)


def whole_header(file: IO[bytes]) -> Header:
    """The header of the array that a file holds and nothing else; a ValueError for any other. Leaves it at the end."""
    header = read_header(file)
    start = file.tell()
    size = file.seek(0, 2) - start
    if size != header.nbytes:
        raise ValueError(f"{size:,} bytes of numbers where the header claims {header.nbytes:,}")
    return header


def map_npy(path: Path, remedy: str) -> np.ndarray:
    """The array in an .npy, mapped into memory; `remedy` ends the line that refuses any other file."""
    with open_file(path, remedy) as file:
        try:
            whole_header(file)
        except ValueError as error:
            raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:120]}); {remedy}") from None
    return np.lib.format.open_memmap(path, mode="r")


def save_npy(path: Path, array: np.ndarray) -> None:
    """Write an array into a file of this very name."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # at its end the checksum is compared
        return array
