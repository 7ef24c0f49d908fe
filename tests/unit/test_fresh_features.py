"""Features of a photo go along with its first result, once, and do not stay in what a run remembers."""

from pathlib import Path

import numpy as np
import pytest

from enrich.model.bundle import Bundle
from enrich.model.features import feature_id
from enrich.pipeline.features import FreshFeatures
from enrich.records import Output, Photo, PhotoResult, PhotoScore, PhotoStatus
from tests.support.bundles import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("fresh") / "tiny")


def made(bundle: Bundle, value: float = 1.0) -> dict[str, Output]:
    return {bundle.members[0].model_id: Output({}, np.full(8, value, np.float32))}


def result(sha256: str | None = "s", scored: bool = True) -> PhotoResult:
    score = PhotoScore(sha256 or "", 0, {}) if scored else None
    return PhotoResult(Photo(0, "u", "k", "u"), PhotoStatus.OK, sha256, score)


def test_the_first_result_takes_them_along_and_no_other(bundle: Bundle) -> None:
    fresh = FreshFeatures(bundle, "float16")
    fresh.put("s", made(bundle))
    assert fresh.join(result("another")).score == result("another").score
    first, second = fresh.join(result()), fresh.join(result())
    assert first.score is not None and second == result()
    (packed,) = first.score.embeddings.values()
    assert [*first.score.embeddings] == [feature_id(bundle.members[0])]
    assert (packed.kind, len(packed.data)) == ("float16", 16)


def test_a_photo_without_bytes_or_scores_has_none(bundle: Bundle) -> None:
    fresh = FreshFeatures(bundle, "int8")
    fresh.put("s", made(bundle))
    assert fresh.join(result(None)) == result(None)
    assert fresh.join(result(scored=False)) == result(scored=False)


def test_where_none_are_kept_none_are_packed(bundle: Bundle, tmp_path: Path) -> None:
    fresh = FreshFeatures(bundle, "none")
    fresh.put("s", made(bundle))
    assert fresh.join(result()) == result()


def test_features_that_do_not_fit_are_left_out(bundle: Bundle) -> None:
    fresh = FreshFeatures(bundle, "float16")
    fresh.put("s", made(bundle, 1e6))
    assert fresh.join(result()) == result()
