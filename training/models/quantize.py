"""A member's backbone in int8: post-training quantisation (Jacob et al. 2018) by NNCF, on photos.

Weights are rounded symmetrically, activations asymmetrically ("mixed"); what rounding adds to a layer's mean
is taken off its bias, layer by layer (NNCF's full bias correction).
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enrich.model.bundle import Bundle, Member, Preprocessing
from enrich.model.openvino_engine import backbone
from enrich.photos.decode import decode
from training.data.photos import MAX_PIXELS

SAMPLES = 300
"""Photos that the ranges of activations are read from."""


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
    made = nncf.quantize(
        backbone(bundle, member, cache),
        nncf.Dataset(list(pictures), lambda picture: picture[None]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        fast_bias_correction=False,
        # By default the first convolution has weights of 7 bits, for CPUs that int8 is not for (`NEEDED`).
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
    )
    with tempfile.TemporaryDirectory() as folder:
        ir = Path(folder) / "int8.xml"
        ov.save_model(made, ir, compress_to_fp16=False)
        return ir.read_bytes(), ir.with_suffix(".bin").read_bytes()


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
