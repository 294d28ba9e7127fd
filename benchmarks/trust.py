"""How well the stated agreement holds without data: stated beside true for classifiers at several ratios and budgets.

    python benchmarks/trust.py ZOO DATA [--only NAME ..] [--amounts "ratio 0.3" ..] [--rows build/trust.json]
    python benchmarks/trust.py ZOO DATA --fit [--rows build/trust.json]

ZOO and DATA are folders as those of fidelity.py. Every classifier is compressed as it is, and once more where its
BatchNormalization can be folded first, with made-up samples alone. `true` is the top-1 agreement of original and
result on real pictures, `on made-up` that on made-up ones, and `stated` the middle of what the tool prints. Each row is
kept in a JSON file as soon as it is known, with all that a statement may be fitted to, and is not computed again.

`--fit` computes nothing new: it fits the constants of onnx_tropnnc/running/likely_agreement.py to the rows, and
says how far the statement is off for rows of a model that the fit has not seen.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fidelity import CLASSIFIERS
from measuring import LabelledImages
from numpy.typing import NDArray
from scipy.optimize import minimize

import onnx_tropnnc
from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.knowledge import knows_statistics
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.likely_agreement import Calibration, from_made_up_samples
from onnx_tropnnc.running.score_errors import ScoreErrors, ScoreTally
from onnx_tropnnc.sample_sets import draw_samples

Row = dict[str, Any]
Floats = NDArray[np.float64]

AMOUNTS: Mapping[str, Mapping[str, float]] = {
    **{f"ratio {ratio}": {"ratio": ratio} for ratio in (0.1, 0.2, 0.3, 0.4, 0.5)},
    "MACs 0.8": {"target_macs": 0.8},
    "parameters 0.5": {"target_params": 0.5},
}

# What an optimistic statement costs beside a pessimistic one: a bad model is shipped.
OPTIMISM = 0.08

# Keeps the constants small where the rows leave them open.
PULL = 0.03

# Where the search starts: the logarithms of tolerance and steepness, and between them the four exponents.
START = (0.0, 0.5, 0.5, 0.3, 0.0, 0.5)


def scores(model: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a model's rows of scores for images of any layout that has the right number of values."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    dims = [d if isinstance(d, int) else s for d, s in zip(entry.shape[1:], images.shape[1:], strict=False)]
    step = entry.shape[0] if isinstance(entry.shape[0], int) else 50
    whole = images[: len(images) - len(images) % step] if isinstance(entry.shape[0], int) else images
    parts = [
        session.run(None, {entry.name: whole[i : i + step].reshape(-1, *dims)})[0] for i in range(0, len(whole), step)
    ]
    return np.concatenate([part.reshape(part.shape[0], -1) for part in parts])


def compared(original: bytes, result: bytes, images: NDArray[np.float32]) -> tuple[float, ScoreErrors | None]:
    """Return the percentage of inputs with the same answer, and the errors of the scores."""
    before, after = scores(original, images), scores(result, images)
    tally = ScoreTally()
    tally.add(before, after)
    return 100 * float(np.mean(before.argmax(axis=1) == after.argmax(axis=1))), tally.errors()


def measured(name: str, source: bytes, amount: str, images: NDArray[np.float32]) -> Row:
    """Compress a model without data and return all that is known of the result."""
    start = time.process_time()
    options = Options(**AMOUNTS[amount])
    model = load(source)
    samples = draw_samples(model, options)
    report = Compression(model, options, samples=samples, surveys=True).run()
    result = to_proto(model).SerializeToString()
    assert samples.verifying is not None
    made_up, found = compared(source, result, next(iter(samples.verifying.arrays.values())))
    true, real = compared(source, result, images)
    errors = [change.error_after for change in report.of(Reconstructed) if change.error_after is not None]
    return {
        "model": name,
        "amount": amount,
        "parameters": report.after.parameters / report.before.parameters,
        "macs": None if not report.before.macs else (report.after.macs or 0) / report.before.macs,
        "on_made_up": made_up,
        "true": true,
        "errors": None if found is None else asdict(found),
        "real_errors": None if real is None else asdict(real),
        "statistics_known": knows_statistics(model.graph),
        "layer_errors": errors,
        "seconds": time.process_time() - start,
    }


def measure(zoo: Path, data: Path, path: Path, only: Sequence[str], amounts: Sequence[str], count: int) -> None:
    """Add the rows that the file does not hold yet."""
    rows = read(path)
    known = {(row["model"], row["amount"]) for row in rows}
    for name, classifier in CLASSIFIERS.items():
        file = zoo / f"{name}.onnx"
        if not file.exists() or (only and name not in only):
            continue
        normalised = {"mean": classifier.mean, "deviation": classifier.std}
        images = LabelledImages.load(data / f"{classifier.data}.npz", limit=count, **normalised).images
        for label, source in _forms(name, file):
            for amount in amounts:
                if (label, amount) in known:
                    continue
                try:
                    rows.append(measured(label, source, amount, images))
                except OptionError as error:  # a budget that this model cannot reach
                    print(f"{label}, {amount}: {error}", flush=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(rows, indent=1))
                print(_line(rows[-1]), flush=True)


def _forms(name: str, file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the model as it is, and folded where that makes a difference."""
    source = file.read_bytes()
    yield name, source
    if any(node.op_type == "BatchNormalization" for node in onnx.load_from_string(source).graph.node):
        yield f"{name}, folded", onnx_tropnnc.compress(source, ratio=0.0, verify=False)[0].SerializeToString()


def read(path: Path) -> list[Row]:
    """Return the rows of a file; none where it does not exist."""
    return json.loads(path.read_text()) if path.exists() else []


def stated(row: Row) -> float:
    """Return the middle that the tool states for a row."""
    found = None if row["errors"] is None else ScoreErrors(**row["errors"])
    known = row["statistics_known"]
    exact = found is not None and found.relative == 0
    return from_made_up_samples(found, "made-up pictures", same=exact, statistics_known=known).middle


def _line(row: Row) -> str:
    figures = " | ".join(f"{value:.1f}" for value in (row["true"], row["on_made_up"], stated(row)))
    return f"| {row['model']} | {row['amount']} | {100 * row['parameters']:.0f} % | {figures} |"


def summarise(rows: Sequence[Row]) -> None:
    """Print a table with one line for each model, and what all rows say together."""
    print("\n| model | runs | true | off on made-up pictures | off as stated | most optimistic | most pessimistic |")
    print("|" + " --- |" * 7)
    models = dict.fromkeys(row["model"] for row in rows)
    for label, part in [*((m, [r for r in rows if r["model"] == m]) for m in models), ("all", rows)]:
        true = np.array([row["true"] for row in part])
        raw, off = (np.array(values) - true for values in ([r["on_made_up"] for r in part], [*map(stated, part)]))
        spread = f"{true.min():.0f} to {true.max():.0f}"
        most = f"{max(0.0, off.max()):.1f} | {max(0.0, -off.min()):.1f}"
        print(f"| {label} | {len(part)} | {spread} | {np.abs(raw).mean():.1f} | {np.abs(off).mean():.1f} | {most} |")


def _calibration(point: Floats) -> Calibration:
    tolerance, confidence, certainty, growth, steeper, steepness = map(float, point)
    return Calibration(math.exp(tolerance), confidence, certainty, growth, math.exp(steepness), steeper)


def _predicted(point: Floats, rows: Sequence[Row]) -> Floats:
    calibration = _calibration(point)
    found = [(ScoreErrors(**row["errors"]), row["statistics_known"]) for row in rows]
    return np.array([calibration.agreement(calibration.excess(e, statistics_known=k), e.width) for e, k in found])


def fitted(rows: Sequence[Row]) -> Floats:
    """Return the constants that state the rows best; every family of models counts as the root of its rows."""
    families = [_family(row) for row in rows]
    weights = np.array([families.count(family) ** -0.5 for family in families])
    true = np.array([row["true"] for row in rows])

    def loss(point: Floats) -> float:
        off = _predicted(point, rows) - true
        # a few points off are chance; far rows pull no more than linearly, unless they are optimistic
        cost = np.sqrt(off**2 + 9) - 3 + OPTIMISM * np.maximum(off, 0) ** 2
        return float(weights @ cost / weights.sum() + PULL * point @ point)

    return np.asarray(minimize(loss, np.array(START), method="Powell", options={"xtol": 1e-3, "ftol": 1e-4}).x)


def _family(row: Row) -> str:
    return str(row["model"].removesuffix(", folded").removesuffix("_bn").removesuffix("_folded"))


def fit(rows: Sequence[Row]) -> None:
    """Print the constants, and how far statements are off that are fitted without the model's own rows."""
    # results that answer exactly as the original tell nothing of the constants
    rows = [row for row in rows if row["errors"] is not None and row["errors"]["relative"] > 0]
    print(f"\n{_calibration(fitted(rows))}")
    off = []
    for family in dict.fromkeys(map(_family, rows)):
        unseen = [row for row in rows if _family(row) == family]
        point = fitted([row for row in rows if _family(row) != family])
        off.append(_predicted(point, unseen) - np.array([row["true"] for row in unseen]))
    apart = np.concatenate(off)
    print(f"of models left out of the fit: {np.abs(apart).mean():.1f} points off, {apart.max():.1f} at most too high")


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--amounts", nargs="+", choices=tuple(AMOUNTS), default=tuple(AMOUNTS))
    parser.add_argument("--rows", type=Path, default=Path("build/trust.json"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--fit", action="store_true")
    given = parser.parse_args()
    if not given.fit:
        measure(given.models, given.data, given.rows, given.only, given.amounts, given.images)
    rows = read(given.rows)
    summarise(rows)
    if given.fit:
        fit(rows)


if __name__ == "__main__":
    main()
