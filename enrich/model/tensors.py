"""Files of a bundle, read and checked: nothing is unpickled, nothing but finite numbers comes in."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from enrich.errors import BundleError
from enrich.model.head import Head


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


def backbone_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Over a backbone's own weights, as float32."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith("backbone.") and tensors[name].dtype.kind == "f":  # counters change no feature
            digest.update(f"{name} {tensors[name].shape}\n".encode())
            digest.update(tensors[name].astype("<f4").tobytes())
    return digest.hexdigest()


def check_tensors(path: Path, heads: Sequence[Head], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Check that the heads' tensors fit the manifest; the backbone's are checked by who builds it.

    Raises:
        BundleError: a tensor is missing, of another shape, or belongs to nothing.
    """
    features: int | None = None
    expected = set()
    for head in heads:
        for part in ("weight", "bias"):
            name = f"head.{head.name}.{part}"
            expected.add(name)
            if name not in tensors:
                raise BundleError(f"{path}: tensor {name!r} is missing; export the bundle again")
            shape = tensors[name].shape
            if part == "weight" and features is None and len(shape) == 2:
                features = shape[1]
            wanted = (head.outputs, features) if part == "weight" else (head.outputs,)
            if shape != wanted:
                raise BundleError(
                    f"{path}: tensor {name!r} has shape {list(shape)}, head {head.name!r} needs "
                    f"[{head.outputs}{', features' if part == 'weight' else ''}]; export the bundle again"
                )
    for name in sorted(tensors):
        if name not in expected and not name.startswith("backbone."):
            raise BundleError(f"{path}: tensor {name!r} belongs to no head of the manifest; take it out")
    if not any(name.startswith("backbone.") for name in tensors):
        raise BundleError(f"{path}: no tensor 'backbone.…'; export the bundle with its backbone")
