"""Refitting a producer with its consumer: gradients against differences, exact recovery, and what is refused."""

import array_api_strict
import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnx_tropnnc.backend import to_numpy
from onnx_tropnnc.solving.activation_slopes import Activation
from onnx_tropnnc.solving.refits.effort import affordable_batch, affordable_steps, search_macs
from onnx_tropnnc.solving.refits.errors import ChainWeights
from onnx_tropnnc.solving.refits.rows import ChainRows
from onnx_tropnnc.solving.refits.search import _Search, refit

RELU = Activation(lambda x: x * (x > 0), lambda x: 1.0 * (x > 0))
SQUARE = Activation(lambda x: x * x, lambda x: 2.0 * x)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def weights(seed: int, d: int, hidden: int, offsets: int, m: int, xp=np) -> ChainWeights:  # type: ignore[no-untyped-def]
    shapes = (d, hidden), (hidden,), (offsets * hidden, m), (m,)
    return ChainWeights(tuple(xp.asarray(drawn(seed, *shape)) for shape in shapes))


def made(inputs: np.ndarray, reads: np.ndarray, of: ChainWeights, activation: Activation) -> np.ndarray:
    """T as the module's docstring has it, row by row."""
    hidden = inputs
    for matrix, bias in of.layers[:-1]:
        hidden = activation.value(hidden @ matrix + bias)
    padded = np.concatenate([hidden, np.zeros_like(hidden[:1])])
    return np.stack([padded[row].reshape(-1) @ of.parts[-2] + of.parts[-1] for row in reads])


def rows(seed: int, of: ChainWeights, count: int = 200, offsets: int = 3, activation: Activation = RELU) -> ChainRows:
    inputs = drawn(seed, count, of.parts[0].shape[0])
    reads = np.random.default_rng(seed).integers(0, count + 1, (count, offsets))
    return ChainRows(inputs, reads, made(inputs, reads, of, activation))


@pytest.mark.parametrize("activations", [(SQUARE,), (RELU, SQUARE), ()])
@pytest.mark.parametrize("deeper", [0, 2])
def test_the_gradient_is_that_of_the_error(activations: tuple[Activation, ...], deeper: int) -> None:
    """Along random directions, in float64; the squares make it smooth where the direction crosses no corner."""
    between = tuple(0.3 * drawn(6 + i, *shape) for i in range(deeper) for shape in ((4, 4), (4,)))
    start = ChainWeights(tuple(part.astype(np.float64) for part in (*between, *weights(1, 4, 5, 3, 2).parts)))
    target = rows(2, weights(3, 4, 5, 3, 2))
    search = _Search(target, target, start, (activations,) * (deeper + 1))
    point = 0.1 * np.random.default_rng(5).standard_normal(search.size)
    _, gradient = search.error_and_gradient(target, point)
    for seed in range(4):
        way = 1e-3 * np.random.default_rng(seed).standard_normal(search.size)
        above, below = (search.error_and_gradient(target, point + sign * way)[0] for sign in (1, -1))
        assert_allclose((above - below) / 2, gradient @ way, rtol=5e-3)


def test_weights_that_were_shaken_are_found_again() -> None:
    true = weights(0, 6, 4, 3, 5)
    shaken = ChainWeights(tuple(part + 0.1 * drawn(9, *part.shape) for part in true.parts))
    found = refit(rows(1, true, 600), rows(2, true), shaken, ((RELU,),), batch=600, steps=1500)
    assert found is not None
    assert found.error_before > 0.1
    assert found.error_after < 0.01
    fresh = rows(3, true)
    gap = made(fresh.inputs, fresh.reads, found.weights, RELU) - fresh.targets
    assert np.linalg.norm(gap) < 0.02 * np.linalg.norm(fresh.targets - fresh.targets.mean(axis=0))


def test_layers_in_front_are_found_too() -> None:
    """Three layers, all of them shaken."""
    true = ChainWeights((drawn(4, 6, 6), drawn(4, 6), *weights(0, 6, 4, 1, 5).parts))
    shaken = ChainWeights(tuple(part + 0.1 * drawn(9, *part.shape) for part in true.parts))
    fitted, held = rows(1, true, 800, 1), rows(2, true, 200, 1)
    found = refit(fitted, held, shaken, ((RELU,), (RELU,)), steps=1500, batch=400)
    assert found is not None
    assert found.error_before > 0.1
    assert found.error_after < 0.03


def test_parts_that_are_fixed_stay() -> None:
    true = weights(0, 6, 4, 1, 5)
    shaken = ChainWeights(tuple(part + 0.1 * drawn(9, *part.shape) for part in true.parts))
    fitted, held = rows(1, true, 400, 1), rows(2, true, 100, 1)
    found = refit(fitted, held, shaken, ((RELU,),), steps=50, batch=64, fixed=(1, 3))
    assert found is not None
    same = [np.array_equal(new, old) for new, old in zip(found.weights.parts, shaken.parts, strict=True)]
    assert same == [False, True, False, True]


@pytest.mark.parametrize("offsets", [1, 3])
def test_some_of_the_rows_make_what_they_did(offsets: int) -> None:
    true = weights(0, 6, 4, offsets, 5)
    some = next(rows(1, true, 500, offsets).draws(130, np.random.default_rng(0)))
    assert 130 <= len(some.targets) <= 192
    assert some.reads.max() <= len(some.inputs)
    assert_allclose(made(some.inputs, some.reads, true, RELU), some.targets, atol=1e-5)


def test_draws_of_linear_layers_see_every_row_equally_often() -> None:
    whole = ChainRows(drawn(1, 500, 6), np.arange(500)[:, None], drawn(2, 500, 5))
    draws = whole.draws(150, np.random.default_rng(0))
    seen = np.concatenate([next(draws).targets for _ in range(10)])
    each, counts = np.unique(seen, axis=0, return_counts=True)
    assert (len(each), set(counts)) == (500, {3})


def test_what_held_out_rows_do_not_like_is_not_taken() -> None:
    """The weights are the truth of the held-out rows; those to fit are noise."""
    true = weights(0, 6, 4, 1, 5)
    held = rows(2, true, offsets=1)
    noise = ChainRows(held.inputs, held.reads, drawn(7, 200, 5))
    assert refit(noise, held, true, ((RELU,),), steps=50, batch=64) is None


def test_rows_that_are_not_finite_are_not_fitted() -> None:
    true = weights(0, 6, 4, 1, 5)
    held = rows(2, true, offsets=1)
    broken = ChainRows(held.inputs, held.reads, np.where(held.targets > 1, np.float32(np.inf), held.targets))
    with np.errstate(all="ignore"):
        assert refit(broken, broken, true, ((RELU,),), steps=5, batch=64) is None


def test_another_namespace_finds_the_same() -> None:
    true = weights(0, 4, 3, 2, 2)
    start = ChainWeights(tuple(part + 0.2 * drawn(9, *part.shape) for part in true.parts))
    fitted, held = rows(1, true, offsets=2), rows(2, true, offsets=2)
    there = refit(fitted, held, start, ((RELU,),), steps=40, batch=64)
    xp = array_api_strict
    moved = [ChainRows(xp.asarray(r.inputs), r.reads, xp.asarray(r.targets)) for r in (fitted, held)]
    relu = Activation(lambda x: xp.where(x > 0, x, xp.zeros_like(x)), lambda x: xp.astype(x > 0, x.dtype))
    strict = refit(
        moved[0], moved[1], ChainWeights(tuple(map(xp.asarray, start.parts))), ((relu,),), steps=40, batch=64
    )
    assert there is not None
    assert strict is not None
    for one, other in zip(there.weights.parts, strict.weights.parts, strict=True):
        assert_allclose(to_numpy(other), one, rtol=1e-2, atol=1e-3)


def test_many_searches_share_what_all_may_take() -> None:
    """Steps are saved before outputs, and nothing is searched where few outputs are left."""
    assert [affordable_steps(share) for share in (1.0, 0.5, 0.1)] == [150, 75, 50]
    assert [affordable_batch((1_000, 1_000), share) for share in (1.0, 0.5, 1 / 6)] == [1024, 1024, 512]
    assert affordable_batch((1_000, 1_000), 0.01) == 0
    assert 256 <= affordable_batch((200_000, 400_000)) < 2048
    assert affordable_batch((10_000_000, 10_000_000)) == search_macs((10_000_000, 10_000_000)) == 0
    assert search_macs((1_000, 1_000)) == 150 * 1024 * 5_000
