"""Duplicates among the photos of a task: what goes, and what people should look at.

Two photos are compared by 128 bits: the perceptual hash (Zauner 2010: low frequencies of the cosine
transform) and the difference hash of `imagehash`, 64 bits each. Either alone takes rooms of a like layout for
the same photo long before it has found all copies. The limit of 24 bits was chosen by eye on 6,600 photos of
homes: up to 25 bits all 15 pairs were the same view, at 26 to 28 four of 18.
"""

import numpy as np
import pandas as pd

NEAR = 24
"""Up to this distance two photos count as the same."""
DOUBT = 4
"""Pairs up to this much farther apart are shown to people."""


def find_pairs(photos: pd.DataFrame, limit: int) -> pd.DataFrame:
    """All pairs of photos that differ in at most `limit` of 128 bits, in order; `photos` has the columns
    `fingerprint` and `sha256` of `Looked`.

    Columns: `first` and `second` (rows of `photos`), `distance` (differing bits of 128), `exact` (the files
    are equal byte by byte), `how` (the likeness in words).
    """
    rows, sha256 = photos.index.tolist(), photos["sha256"].tolist()
    bits = np.array(photos["fingerprint"].tolist(), dtype=np.uint64).reshape(-1, 2)
    pairs = []
    for i, mine in enumerate(bits):
        distance = np.bitwise_count(bits[i + 1 :] ^ mine).sum(axis=1, dtype=int)
        for j in np.flatnonzero(distance <= limit) + i + 1:
            far, exact = int(distance[j - i - 1]), sha256[i] == sha256[j]
            how = "equal to" if exact else f"{far} of 128 bits from"
            pairs.append((rows[i], rows[j], far, exact, how))
    return pd.DataFrame(pairs, columns=["first", "second", "distance", "exact", "how"])


def copies(photos: pd.DataFrame, near: pd.DataFrame) -> dict[int, tuple[str, str]]:
    """Row -> (reason, detail) of the photos of one task that near-duplicate pairs lead to drop; `photos` has
    the columns `label` and `source`.

    The same photo in two classes has contradicting labels: both go. Within a class the first stays.
    """
    label, source = photos["label"], photos["source"]
    dropped: dict[int, tuple[str, str]] = {}
    for pair in near.itertuples():
        if label[pair.first] != label[pair.second]:
            for mine, other in ((pair.first, pair.second), (pair.second, pair.first)):
                words = f"{pair.how} {source[other]} of class {label[other]}"
                dropped.setdefault(mine, ("contradicting", words))
    for pair in near.itertuples():  # in the order of `first`: what stays is settled before its copies are
        if pair.first not in dropped and pair.second not in dropped:
            reason = "duplicate" if pair.exact else "near_duplicate"
            dropped[pair.second] = (reason, f"{pair.how} {source[pair.first]}")
    return dropped
