"""Texts made up for models that read tokens."""

import numpy as np
import pytest
from graphs import graph
from numpy.testing import assert_array_equal
from text_models import BERT, NAMES, bert_samples, row

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.input_hints import InputHints, input_hints
from onnx_tropnnc.inputs.padding import mask_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.inputs.texts import TextInputs, text_inputs


def test_ids_masks_types_and_positions_describe_the_same_texts():
    arrays = bert_samples().arrays
    ids, mask, types, positions = (arrays[name] for name in NAMES)
    lengths = mask.sum(axis=1)
    assert_array_equal(mask, np.arange(24) < lengths[:, None])
    assert (ids[mask == 0] == 0).all()
    assert (ids[:, 0] == 101).all()
    assert (ids[np.arange(40), lengths - 1] == 102).all()
    assert (types[mask == 0] == 0).all()
    assert_array_equal(types.max(axis=1), [number % 4 == 3 for number in range(40)])
    assert_array_equal(positions, np.broadcast_to(np.arange(24), (40, 24)))


def test_lengths_are_mixed_and_words_follow_a_law_of_frequencies():
    arrays = bert_samples(400).arrays
    lengths = arrays["attention_mask"].sum(axis=1)
    assert lengths.min() == 6
    assert lengths.max() == 24
    words = arrays["input_ids"][arrays["input_ids"] >= 1996]
    counts = np.sort(np.unique(words, return_counts=True)[1])[::-1]
    assert words.max() <= 30521
    # of 28,526 words drawn alike the hundred commonest would be one in 280
    assert counts[:100].sum() > 0.2 * counts.sum()
    pairs = np.unique(words[:-1] * 30522 + words[1:], return_counts=True)[1]
    assert pairs.max() > 5


def test_texts_without_a_mask_fill_their_rows():
    found = synthetic_samples([row("tokens")], 30, 0, None, {"tokens": InputHints(indices=(0, 39))})
    ids = found.arrays["tokens"]
    assert (ids.min(), ids.max()) == (0, 39)
    assert found.source == "synthetic (tokens: words)"


def test_half_of_the_texts_fill_their_rows_where_padding_would_be_fitted_on():
    found = synthetic_samples([row(n, elastic=False) for n in NAMES[:2]], 40, 0, None, {"input_ids": BERT})
    lengths = found.arrays["attention_mask"].sum(axis=1)
    assert (lengths == 24).sum() >= 20
    assert lengths.min() < 10


def test_masks_may_be_flags():
    entries = [row("input_ids"), ResolvedInput("attention_mask", np.dtype(bool), (24,), elastic=True)]
    found = synthetic_samples(entries, 40, 0, None, {"input_ids": BERT})
    assert found.arrays["attention_mask"].dtype == bool
    assert 0 < found.arrays["attention_mask"].mean() < 1
    assert mask_of(found) == "attention_mask"


def test_each_mask_belongs_to_the_ids_whose_name_is_most_like_its_own():
    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
    hints = {"input_ids": BERT, "decoder_input_ids": BERT}
    assert text_inputs([row(name) for name in names], hints) == (
        TextInputs("input_ids", ("attention_mask",)),
        TextInputs("decoder_input_ids", ("decoder_attention_mask",)),
    )


def test_a_mask_is_known_by_what_the_graph_computes_of_it():
    body = "e = Gather(table, ids) d = Cast <to = 1> (seen) z = Sub(one, d) y = Mul(z, large)"
    model = graph(
        body,
        {"table": np.ones((30, 2)), "one": np.ones(()), "large": np.full(1, -1e4)},
        inputs="int64[N, T] ids, int64[N, T] seen",
        outputs="float[N, T, 2] e, float[N, T] y",
    )
    found = input_hints(model)
    assert (found["ids"].mask, found["seen"].mask) == (False, True)
    assert set(samples_for(load(model), count=50).arrays["seen"].ravel().tolist()) == {0, 1}


@pytest.mark.parametrize("entry", [row("categories", 3), row("image_ids", 24)])
def test_other_rows_of_whole_numbers_stay_drawn_alike(entry):
    found = synthetic_samples([entry], 30, 0, None, {entry.name: InputHints(indices=(0, 9))})
    assert "tokens" in found.source


def test_a_range_that_the_user_gave_comes_first():
    ranged = synthetic_samples([row(n) for n in NAMES[:2]], 9, 0, {"input_ids": (5.0, 7.0)}, {"input_ids": BERT})
    assert set(ranged.arrays["input_ids"].ravel().tolist()) == {5, 6, 7}
    assert (ranged.arrays["attention_mask"] == 1).all()


def test_the_same_seed_gives_the_same_texts():
    assert_array_equal(bert_samples().arrays["input_ids"], bert_samples().arrays["input_ids"])
