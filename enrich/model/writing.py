"""Writing a bundle: made beside its place, tried, and moved there whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from enrich.atomic import check_folder, new_folder
from enrich.errors import BundleError
from enrich.model.bundle import FORMAT, MANIFEST, Bundle, load_bundle

_ENDINGS = (".safetensors", ".xml", ".bin", ".xml.gz", ".bin.gz")


def write_bundle(
    folder: Path,
    manifest: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Any]],
    irs: Mapping[str, bytes] = MappingProxyType({}),
) -> Bundle:
    """Write `manifest` (without `format` and `files`), `tensors` (file -> name -> array or torch tensor) and
    `irs`, the contents of files of networks in int8.

    The bundle is made beside `folder` and loaded as a check before it takes its place, where an earlier
    bundle, but nothing else, may be.

    Raises:
        BundleError: the bundle would not load, or `folder` holds something that is not a bundle.
    """
    check_free(folder)
    with new_folder(folder) as made:
        files = {}
        weights = {
            name: safetensors.numpy.save({key: _array(value) for key, value in by_tensor.items()})
            for name, by_tensor in tensors.items()
        }
        for name, data in {**weights, **irs}.items():
            (made / name).write_bytes(data)
            files[name] = hashlib.sha256(data).hexdigest()
        write_manifest(made, {"format": FORMAT, **manifest, "files": files})
    return load_bundle(folder)


def check_free(folder: Path) -> None:
    """Refuse to write a bundle where something else is, or where nothing can be written.

    Raises:
        UsageError: it cannot be written there.
        BundleError: `folder` is a file, or holds something that is not a bundle.
    """
    check_folder(folder, str(folder))
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file: name a folder")
    there = list(folder.glob("*"))
    for path in there:
        if path.is_dir() or (path.name != MANIFEST and not path.name.endswith(_ENDINGS)):
            raise BundleError(
                f"{folder}: holds {path.name!r}, which is no part of a bundle; choose another folder"
            )
    if there and not (folder / MANIFEST).exists():
        raise BundleError(
            f"{folder}: holds {there[0].name!r} and no {MANIFEST}, so it is no bundle; choose another folder"
        )


def write_manifest(made: Path, manifest: Mapping[str, Any]) -> Bundle:
    """Complete a bundle whose other files are there already, and load it as a check.

    Raises:
        BundleError: the bundle would not load.
    """
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    (made / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return load_bundle(made)


def _array(tensor: Any) -> NDArray[Any]:
    plain = tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor
    return np.asarray(plain, order="C")  # safetensors writes the memory as it lies
