"""What made-up samples are taken to tell of real ones."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import mlp
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc import compress
from onnx_tropnnc.running.differences import Tally
from onnx_tropnnc.running.likely_agreement import (
    UNSURE,
    Calibration,
    LikelyAgreement,
    from_made_up_samples,
    from_real_samples,
)
from onnx_tropnnc.running.score_errors import ScoreErrors, ScoreTally

PICTURES = "made-up pictures"
FOUND = ScoreErrors(rows=200, width=10, relative=0.2, confidence=0.5, certainty=0.6, classes=7.0)


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(2, 1000), st.floats(0, 1e9), st.floats(0, 1), st.booleans())
def test_a_larger_error_never_promises_more(
    one: float, other: float, width: int, confidence: float, certainty: float, known: bool
) -> None:
    smaller, larger = sorted((one, other))

    def stated(error: float) -> LikelyAgreement:
        found = replace(FOUND, width=width, relative=error, confidence=confidence, certainty=certainty)
        return from_made_up_samples(found, PICTURES, statistics_known=known)

    less, more = stated(larger), stated(smaller)
    assert less.low <= more.low
    assert less.middle <= more.middle
    assert less.high <= more.high
    for likely in (less, more):
        assert 100 / width - 1e-9 <= likely.low <= likely.middle <= likely.high <= 100


def test_no_error_is_full_agreement() -> None:
    found = from_made_up_samples(replace(FOUND, relative=0.0), PICTURES)
    assert (found.low, found.middle, found.high) == (100, 100, 100)
    assert str(found) == "about 100 %, judged on made-up pictures"


def test_the_range_is_wider_where_made_up_samples_reach_few_classes() -> None:
    several = from_made_up_samples(replace(FOUND, confidence=UNSURE), PICTURES)
    few = from_made_up_samples(replace(FOUND, confidence=9.0, classes=1.5), PICTURES)
    assert few.high - few.low > several.high - several.low


def test_two_classes_are_not_few() -> None:
    both, one = (
        from_made_up_samples(replace(FOUND, width=2, classes=c, confidence=UNSURE), PICTURES) for c in (2.0, 1.0)
    )
    assert one.high - one.low > both.high - both.low


def test_real_samples_are_stated_as_measured() -> None:
    found = from_real_samples(75.0, 20, 10)
    assert (found.middle, found.real, str(found)) == (75.0, True, "75.0 %")
    # Wilson's interval of 15 in 20
    assert (found.low, found.high) == (pytest.approx(53.13, abs=0.01), pytest.approx(88.81, abs=0.01))
    assert from_real_samples(100.0, 20, 10).high == 100.0
    assert from_real_samples(0.0, 20, 10).low == 0.0


def test_samples_that_tell_nothing_are_said_to() -> None:
    unknown = from_made_up_samples(None, PICTURES)
    assert not unknown.known
    assert str(unknown) == "unknown: made-up pictures cannot judge this model; give --data"
    assert from_made_up_samples(None, PICTURES, same=True).middle == 100


@pytest.mark.parametrize("error", [1.0, 3.0, 10.0])
def test_the_part_of_the_error_that_may_stay_reaches_what_is_wanted(error: float) -> None:
    found = from_made_up_samples(replace(FOUND, relative=error), PICTURES)
    part = found.part_of_error(95.0)
    assert 0 < part < 1
    assert from_made_up_samples(replace(FOUND, relative=part * error), PICTURES).middle == pytest.approx(95)
    assert found.part_of_error(found.middle) == 1


def scores(rows: int = 60, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    before = generator.standard_normal((rows, width))
    return before, 0.1 * generator.standard_normal((rows, width))


def errors(before: np.ndarray, after: np.ndarray) -> ScoreErrors:
    tally = ScoreTally()
    tally.add(before, after)
    found = tally.errors()
    assert found is not None
    return found


def test_what_all_rows_or_a_whole_row_share_is_no_error() -> None:
    before, noise = scores()
    shared = before + np.arange(5.0) + np.arange(60.0)[:, None]
    assert errors(before, shared).relative == pytest.approx(0, abs=1e-12)
    assert errors(before, shared + noise).relative == pytest.approx(errors(before, before + noise).relative)


def test_errors_do_not_depend_on_the_unit_of_the_scores() -> None:
    before, noise = scores()
    one, other = errors(before, before + noise), errors(1000 * before, 1000 * (before + noise))
    for name in ("relative", "confidence", "classes"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


def test_probabilities_are_compared_as_the_scores_before_softmax() -> None:
    before, noise = scores()

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values)
        return powers / powers.sum(axis=1, keepdims=True)

    likely, plain = errors(softmax(before), softmax(before + noise)), errors(before, before + noise)
    assert likely.relative == pytest.approx(plain.relative)
    assert likely.confidence == pytest.approx(plain.confidence)
    assert likely.certainty == pytest.approx(plain.certainty) == pytest.approx(softmax(before).max(axis=1).mean())


def test_rows_that_tell_nothing_give_no_errors() -> None:
    before, noise = scores()
    assert ScoreTally().errors() is None
    few = ScoreTally()
    few.add(before[:2], before[:2] + noise[:2])
    assert few.errors() is None
    equal = ScoreTally()
    equal.add(np.ones((60, 5)), np.ones((60, 5)) + noise)
    assert equal.errors() is None


def test_more_classes_than_rows_are_not_expected_to_be_reached() -> None:
    def excess(width: int, classes: float) -> float:
        return Calibration().excess(replace(FOUND, rows=50, width=width, classes=classes), statistics_known=False)

    assert excess(1000, 20) == excess(50, 20)
    assert excess(1000, 10) > excess(1000, 20)


def test_few_classes_do_not_matter_where_statistics_are_known() -> None:
    one, other = (Calibration().excess(replace(FOUND, classes=c), statistics_known=True) for c in (4.0, 8.0))
    assert one == other


@pytest.mark.parametrize("kind", ["constant", "unrelated", "negated"])
def test_a_result_without_connection_to_its_input_agrees_by_chance(kind: str) -> None:
    before, noise = scores()
    after = {"constant": 0 * before, "unrelated": noise[::-1], "negated": -before}[kind]
    assert from_made_up_samples(errors(before, after), PICTURES).middle < 30


def test_a_tally_judges_real_samples_by_what_it_counted() -> None:
    before, noise = scores()
    made_up, real = Tally(PICTURES), Tally()
    for tally in (made_up, real):
        tally.add(before, before + noise, None)
    measured, estimated = real.difference("y"), made_up.difference("y")
    assert measured.likely_agreement is not None
    assert estimated.likely_agreement is not None
    assert measured.likely_agreement.middle == measured.agreement == estimated.agreement
    assert (measured.likely_agreement.real, estimated.likely_agreement.real) == (True, False)


def test_reports_say_what_the_agreement_was_judged_on() -> None:
    samples = {"x": np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)}
    for data, words, real in ((None, "made-up samples", False), (samples, "real samples", True)):
        found = compress(mlp(16), ratio=0.5, data=data)[1].to_dict()["verification"]
        likely = found["likely_agreement"]
        assert (likely["judged_on"], likely["real"]) == (words, real)
        assert likely == found["outputs"][0]["likely_agreement"]
        assert likely["low"] <= likely["middle"] <= likely["high"]
        assert not real or likely["middle"] == found["agreement"]


def test_demands_are_judged_by_the_likely_agreement() -> None:
    _, report = compress(mlp(16), ratio=0.75, method="random", reconstruct="off", min_agreement=99.9)
    assert report.verification is not None
    assert report.verification.likely_agreement is not None
    assert report.passed == (report.verification.likely_agreement.middle >= 99.9)
