"""A member's backbone in int8: post-training quantisation (Jacob et al. 2018) by NNCF, on photos.

Weights are rounded symmetrically, activations asymmetrically ("mixed"); what rounding adds to a layer's mean
is taken off its bias, layer by layer (NNCF's full bias correction). In fp32 stay the normalisation of the
pixels and the first convolution.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrich.model.bundle import Bundle, Member, Preprocessing
from enrich.model.openvino_engine import backbone
from enrich.photos.decode import decode
from training.data.photos import MAX_PIXELS

SAMPLES = 300
"""Photos that the ranges of activations are read from."""
EXACT_CONVOLUTIONS = 1
"""The first, in fp32: the stem. With the starter's first block in int8, too, held-out average precision stays
within 0.001 of fp32's."""


def installed() -> bool:
    """Whether NNCF is here; it comes with the extra `training`."""
    try:
        import nncf  # noqa: F401
    except ImportError:
        return False
    return True


def quantize(
    bundle: Bundle, member: Member, pictures: Sequence[NDArray[np.uint8]], cache: Path
) -> tuple[bytes, bytes]:
    """The member's backbone in int8 as OpenVINO writes it: what a file .xml holds, and a file .bin.

    `pictures`: photos as `decode` makes them for the member, uint8 [height, width, 3]. `cache`: folder of
    converted backbones.
    """
    import nncf  # after the module above, which keeps both from telling their makers
    import openvino as ov

    # Its own `set_log_level` would change the handlers that others have put on its logger, too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = backbone(bundle, member, cache)
    made = nncf.quantize(
        model,
        nncf.Dataset(list(pictures), lambda picture: picture[None]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=_exact(model)),
    )
    with tempfile.TemporaryDirectory() as folder:
        ir = Path(folder) / "int8.xml"
        ov.save_model(made, ir, compress_to_fp16=False)
        return ir.read_bytes(), ir.with_suffix(".bin").read_bytes()


def _exact(model: Any) -> list[str]:
    """Names of the operations that stay in fp32."""
    names: list[str] = []
    convolutions = 0
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind in ("Convolution", "GroupConvolution"):
            convolutions += 1
        if convolutions <= EXACT_CONVOLUTIONS and kind in _COMPUTING:
            names.append(operation.get_friendly_name())
    return names


_COMPUTING = ("Add", "Subtract", "Multiply", "Divide", "Convolution", "GroupConvolution")


def sampled(
    paths: Sequence[Path], preprocessing: Preprocessing, seed: int, samples: int = SAMPLES
) -> list[NDArray[np.uint8]]:
    """`samples` of the photos, drawn at random, as the model sees them; what cannot be read is left out."""
    found: list[NDArray[np.uint8]] = []
    for place in np.random.default_rng(seed).permutation(len(paths)):
        photo = decode(paths[place].read_bytes(), (preprocessing,), MAX_PIXELS)
        if photo.status.ok:
            found.append(photo.pixels[0])
        if len(found) == samples:
            break
    return found
