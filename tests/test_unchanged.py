"""Models of which no channel goes: the verdict says so, why, and what to try, in the page and the JSON."""

from typing import Any

import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Merged, Note, Reconstructed

WEIGHTS = random_weights(w=(4, 8), u=(8, 6), t=(6, 3))
LAYERS = "c = MatMul(x, w) r = Relu(c) d = MatMul(r, u) s = Relu(d) y = MatMul(s, t)"


def network() -> onnx.ModelProto:
    return graph(LAYERS, WEIGHTS)


def normalized() -> onnx.ModelProto:
    statistics = random_weights(1, g=(8,), b=(8,), m=(8,), v=(8,))
    nodes = "c = Gemm(x, w) n = BatchNormalization(c, g, b, m, v) r = Relu(n) y = MatMul(r, o)"
    return graph(nodes, WEIGHTS | statistics | random_weights(2, o=(8, 3)))


def pinned() -> onnx.ModelProto:
    return graph("y = MatMul(x, o)", random_weights(o=(4, 3)))


def growing() -> onnx.ModelProto:
    """Return a model whose groups share a constant of 100 numbers, which merging one of them alone has to copy."""
    nodes = (
        "a = MatMul(x, w) b = Mul(a, s) c = Relu(b) d = MatMul(c, u) e = MatMul(d, v) f = Mul(e, s) y = MatMul(f, t)"
    )
    weights = random_weights(w=(3, 100), s=(100,), u=(100, 3), v=(3, 100), t=(100, 3))
    return graph(nodes, weights, inputs="float[N, 3] x", outputs="float[N, 3] y")


def old() -> onnx.ModelProto:
    model = network()
    model.opset_import[0].version = 6
    return model


CASES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "undone": (network, {"ratio": 0.5, "min_cosine": 1.0}, "2 were undone, because verification fails", "demand less"),
    "undone and folded": (normalized, {"ratio": 0.5, "min_agreement": 100.0}, "1 was undone, because", "demand less"),
    "max_drop": (network, {"max_drop": 0.0}, "more answers than --max-drop 0 allows", "larger --max-drop"),
    "lossless": (network, {"lossless": True}, "2 have no channel to spare", "--ratio 0.3"),
    "folded": (normalized, {"ratio": 0.0}, "1 has no channel to spare", "--ratio 0.3"),
    "grown": (
        growing,
        {"ratio": 0.02, "round_to": 1},
        "1 was undone, because it made the model larger",
        "another amount",
    ),
    "excluded": (network, {"ratio": 0.5, "exclude": ("*",)}, "2 are kept by options", "--inspect says which option"),
    "pinned": (pinned, {"ratio": 0.5}, "of 1 channel group 1 is pinned by the graph", "why each group is pinned"),
    "no layer": (lambda: graph("y = Relu(x)", outputs="float[N, 4] y"), {"ratio": 0.5}, "no layer", "--inspect"),
    "old": (old, {"ratio": 0.5}, "the model has opset 6, and only 7 and newer", "version_converter"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_says_that_no_channel_went_and_why(name: str) -> None:
    model, options, why, advice = CASES[name]
    _, report = compress(model(), **options)
    assert not report.of(Merged)
    verdict = report.verdict
    assert verdict.grade == "unchanged"
    assert verdict.text.startswith("No channel was removed: ")
    assert why in verdict.text
    assert advice in verdict.advice
    assert verdict.text in report.to_html().replace("&#39;", "'")
    assert report.to_dict()["verdict"]["text"] == verdict.text
    assert ("Steps that change no output made the model" in verdict.text) == (report.after != report.before)
    # nothing is said of layers that were solved for channels that are there again
    assert not report.of(Reconstructed)
    assert not any("refit" in note.text for note in report.of(Note))


def test_where_some_groups_are_undone_the_report_is_that_of_what_is_left() -> None:
    options = {"ratio": 0.4, "round_to": 1, "uniform": True}
    _, whole = compress(network(), **options)
    cosine = whole.verification.cosine
    _, report = compress(network(), min_cosine=(1 + cosine) / 2, **options)
    merged = report.of(Merged)
    assert 0 < len(merged) < len(whole.of(Merged))
    _, again = compress(network(), plan={change.group: change.merge_map for change in merged})
    assert report.of(Reconstructed) == again.of(Reconstructed)
    assert [str(note) for note in report.of(Note)] == [str(note) for note in again.of(Note)]
    assert report.after == again.after
    assert report.verification.cosine == again.verification.cosine
