"""Prices of homes from their facts, with and without what their photos show.

    python benchmarks/price_model.py [--photos ../shared/photos] [--engine torch|openvino|auto]

The *houses* collection: homes with four photos each (front, kitchen, bedroom, bathroom), and HousesInfo.txt
with their bedrooms, bathrooms, area, zip code and price. The features are those that `enrich export-features`
writes: the mean of the features of a home's photos by the starter bundle. Ridge regression of the logarithm
of the price, ten folds of whole homes, five times with other folds; all is fitted inside the folds.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from enrich.model.bundle import load_bundle
from enrich.model.open import open_engine
from enrich.photos.decode import decode
from enrich.settings import STARTER_BUNDLE, load_settings
from training.markdown import table

ROOMS = ("frontal", "kitchen", "bedroom", "bathroom")
PENALTIES = np.logspace(-2, 4, 13)
COMPONENTS, ROUNDS, FOLDS = 40, 5, 10
Floats = NDArray[np.float64]


def homes(folder: Path) -> tuple[list[int], Floats]:
    """Numbers of the homes, and [homes, (bedrooms, bathrooms, area, price)]."""
    with (folder / "HousesInfo.txt").open(newline="") as file:
        rows = [[float(row[n]) for n in (0, 1, 2, 4)] for row in csv.reader(file, delimiter=" ") if row]
    complete = [
        number
        for number in range(1, len(rows) + 1)
        if all((folder / room / f"{number}_{room}.jpg").exists() for room in ROOMS)
    ]
    return complete, np.array([rows[number - 1] for number in complete])


def features(folder: Path, numbers: list[int], engine_name: str) -> Floats:
    """The mean of the features of each home's photos: [homes, features]."""
    bundle = load_bundle(STARTER_BUNDLE)
    engine = open_engine(bundle, load_settings(engine=engine_name))
    model = bundle.members[0].model_id
    rows = []
    for number in numbers:
        bodies = [(folder / room / f"{number}_{room}.jpg").read_bytes() for room in ROOMS]
        made = engine.score([decode(body, bundle.preprocessings, 10**8).pixels for body in bodies])
        rows.append(np.mean([by_model[model].features for by_model in made], axis=0))
    return np.array(rows, dtype=np.float64)


def model(facts: int, embedded: int) -> Pipeline:
    """Ridge on standardised facts (the first columns) and main components of the features (the others)."""
    parts = []
    if facts:
        parts.append(("facts", StandardScaler(), slice(0, facts)))
    if embedded:
        reduced = make_pipeline(
            StandardScaler(), PCA(COMPONENTS, svd_solver="randomized", random_state=0), StandardScaler()
        )
        parts.append(("photos", reduced, slice(facts, facts + embedded)))
    return make_pipeline(ColumnTransformer(parts), RidgeCV(PENALTIES))


def measured(known: Floats, embedded: Floats, price: Floats) -> list[str]:
    """R² of the logarithm, median error in per cent, and the R² of each round; all on homes held out."""
    columns = np.concatenate([known, embedded], axis=1)
    chosen = model(known.shape[1], embedded.shape[1])
    fits, errors = [], []
    for round in range(ROUNDS):
        folds = KFold(FOLDS, shuffle=True, random_state=round)
        found = cross_val_predict(chosen, columns, np.log(price), cv=folds)
        fits.append(r2_score(np.log(price), found))
        errors.append(float(np.median(np.abs(np.exp(found) / price - 1))))
    return [
        f"{np.mean(fits):.3f}",
        f"{min(fits):.3f} to {max(fits):.3f}",
        f"{100 * float(np.mean(errors)):.1f} %",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    folder = options.photos / "houses"
    numbers, told = homes(folder)
    bedrooms_bathrooms_area, price = told[:, :3].copy(), told[:, 3]
    bedrooms_bathrooms_area[:, 2] = np.log(bedrooms_bathrooms_area[:, 2])
    pooled = features(folder, numbers, options.engine)
    nothing = np.empty((len(numbers), 0))
    rows = [
        ["bedrooms, bathrooms, area", *measured(bedrooms_bathrooms_area, nothing, price)],
        ["photos", *measured(nothing, pooled, price)],
        ["bedrooms, bathrooms, area and photos", *measured(bedrooms_bathrooms_area, pooled, price)],
    ]
    print(f"{len(numbers)} homes, {len(numbers) * len(ROOMS)} photos\n")
    print(table(["price from", "R² of its logarithm", "over the rounds", "median error"], rows))


if __name__ == "__main__":
    main()
