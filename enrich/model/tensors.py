"""Files of a bundle, read and checked: nothing is unpickled, nothing but finite numbers comes in."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from enrich.errors import BundleError


def read_file(path: Path, sha256: str) -> bytes:
    """A file of a bundle.

    Raises:
        BundleError: it is missing, or does not have the hash `sha256`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); copy the whole bundle again") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{path}: sha256 {found[:12]}… is not the manifest's {sha256[:12]}…; copy the whole bundle again"
        )
    return data


def read_tensors(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Tensors by name, as float32 (counters as stored).

    Raises:
        BundleError: the file is missing, does not have the hash `sha256` or holds unusable tensors.
    """
    data = read_file(path, sha256)
    try:
        stored = safetensors.numpy.load(data)
    except (SafetensorError, KeyError) as error:
        raise BundleError(
            f"{path}: not readable as safetensors ({error}); store float32 or float16"
        ) from None
    tensors = {}
    for name, tensor in stored.items():
        if tensor.dtype in (np.float16, np.float32):
            tensor = tensor.astype(np.float32)
            if not np.isfinite(tensor).all():
                raise BundleError(f"{path}: tensor {name!r} has values that are not finite; export it again")
        elif tensor.dtype != np.int64:
            raise BundleError(f"{path}: tensor {name!r} is {tensor.dtype}; store float32 or float16")
        tensors[name] = tensor
    return tensors
