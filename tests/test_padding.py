"""What becomes of the padding of texts: runs without it, outputs compared at the tokens."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from text_models import encoder, write_tokenizer

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples, joined
from onnx_tropnnc.inputs.padding import mask_of, without_padding
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.made_up_samples import original_runner, unpadded
from onnx_tropnnc.running.verification import verify


def test_runs_leave_the_padding_out_and_outputs_stay_those_of_the_tokens():
    model = load(encoder())
    padded = samples_for(model, count=20)
    runner = original_runner(model)
    found = unpadded(padded, runner)
    assert found.lengths is not None
    assert_array_equal(found.lengths, np.sort(padded.arrays["attention_mask"].sum(axis=1))[::-1])
    for window, feed in found.feeds(4):
        assert feed["input_ids"].shape == (4, found.lengths[window].max())
        whole = {name: array[window] for name, array in found.arrays.items()}
        there = whole["attention_mask"] != 0
        (short,), (long,) = runner.run(feed), runner.run(whole)
        assert_allclose(short[there[:, : short.shape[1]]], long[there], rtol=1e-5, atol=1e-5)


def test_a_cosine_on_words_without_an_order_comes_with_that_to_expect_on_sentences(tmp_path):
    model, other = encoder(), encoder()
    for tensor in other.graph.initializer:
        if tensor.name == "w":
            weights = onnx.numpy_helper.to_array(tensor).copy()
            weights[:, :2] *= 0.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    samples = unpadded(samples_for(load(model), count=40), original_runner(load(model)))
    assert samples.has_loose_words
    found = verify(model, other, samples, timing_seconds=0.0)
    assert found.cosine is not None
    low, high = (1 - factor * (1 - found.cosine) for factor in (3.1, 1.6))
    assert f"probably {low:.3f} to {high:.3f} on sentences" in found.notes[0]
    assert verify(model, model, samples, timing_seconds=0.0).notes == ()
    write_tokenizer(tmp_path / "tokenizer.json")
    onnx.save(model, tmp_path / "model.onnx")
    assert not samples_for(load(tmp_path / "model.onnx"), count=5).has_loose_words


def test_labels_and_lengths_stay_with_their_samples():
    padded = samples_for(load(encoder()), count=12)
    lengths = padded.arrays["attention_mask"].sum(axis=1)
    labelled = Samples(padded.inputs, padded.arrays, lengths.astype(np.int64), "here")
    found = without_padding(labelled, lambda feed: True)
    assert_array_equal(found.labels, found.lengths)
    assert_array_equal(joined(found.split()).lengths, np.concatenate([part.lengths for part in found.split()]))


def test_samples_stay_as_they_are_where_shorter_rows_cannot_be_run():
    padded = samples_for(load(encoder()), count=12)
    assert without_padding(padded, lambda feed: False) is padded
    fixed = samples_for(load(encoder(16)), count=12)
    assert mask_of(fixed) == "attention_mask"
    assert without_padding(fixed, lambda feed: True) is fixed


def test_masks_with_zeros_in_front_and_masks_of_ones_are_left_alone():
    padded = samples_for(load(encoder()), count=12)
    for change in (lambda mask: mask[:, ::-1], np.ones_like):
        arrays = {**padded.arrays, "attention_mask": change(padded.arrays["attention_mask"])}
        other = Samples(padded.inputs, arrays, None, "here")
        assert without_padding(other, lambda feed: True) is other


def test_outputs_are_compared_at_the_tokens_and_in_their_mean():
    model, other = encoder(), encoder()
    weight = next(t for t in other.graph.initializer if t.name == "w")
    changed = onnx.numpy_helper.to_array(weight) + 0.2 * np.random.default_rng(1).standard_normal((4, 6))
    weight.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), "w"))
    samples = samples_for(load(model), count=30)
    (found,) = verify(model, other, samples, timing_seconds=0).outputs
    runners = [original_runner(load(which)) for which in (model, other)]
    y, z = (np.float64(runner.run(dict(samples.arrays))[0]) for runner in runners if runner)
    mask = samples.arrays["attention_mask"] != 0

    def cosine(a, b):
        return (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)

    means = [(v * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True) for v in (y, z)]
    assert found.cosine == pytest.approx(min(cosine(y[mask], z[mask]), cosine(*means)), rel=1e-6)
    assert found.agreement is None


def test_a_row_a_text_beside_a_row_a_token_is_an_embedding_and_no_row_of_scores():
    model = encoder()
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["y"], ["pooled"], axes=[1], keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("pooled", 1, ["N", 6]))
    found = verify(model, model, samples_for(load(model), count=12), timing_seconds=0)
    assert found.agreement is None
    assert found.cosine == pytest.approx(1)


def test_a_length_written_into_the_graph_keeps_the_rows_whole():
    proto = encoder()
    proto.graph.node.insert(1, onnx.helper.make_node("Add", ["e", "places"], ["placed"]))
    proto.graph.node[4].input[0] = proto.graph.node[6].input[0] = "placed"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 4), np.float32), "places"))
    model = load(proto)
    padded = samples_for(model, count=12)
    assert unpadded(padded, original_runner(model)) is padded
