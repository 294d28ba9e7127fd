"""Texts made up for models that read tokens, and what becomes of their padding."""

import itertools
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_shapes import ResolvedInput
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples, joined
from onnx_tropnnc.inputs.input_hints import InputHints, input_hints
from onnx_tropnnc.inputs.padding import mask_of, without_padding
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.inputs.sentences import SENTENCES
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.inputs.text_variants import with_recombined_texts
from onnx_tropnnc.inputs.texts import TextInputs, text_inputs
from onnx_tropnnc.inputs.tokenized import tokenizer_beside
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.made_up_samples import original_runner, unpadded
from onnx_tropnnc.running.verification import verify
from onnx_tropnnc.sample_sets import draw_samples
from tests.graphs import graph, random_weights

BERT = InputHints(indices=(0, 30521))
NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def row(name: str, length: int = 24, **more: bool) -> ResolvedInput:
    return ResolvedInput(name, np.dtype(np.int64), (length,), **{"elastic": True, **more})


def bert_samples(count: int = 40, names=NAMES, hints=BERT) -> Samples:
    return synthetic_samples([row(name) for name in names], count, 0, None, {names[0]: hints})


def encoder(length: int | str = "T", words: int = 40, width: int = 4) -> onnx.ModelProto:
    """One output row a token: its embedding times a matrix, plus the sum of all real tokens' embeddings."""
    body = """
        e = Gather(table, input_ids)
        m = Cast <to = 1> (attention_mask)
        c = Unsqueeze(m, last)
        r = Mul(e, c)
        s = ReduceSum <keepdims = 1> (r, middle)
        a = Add(e, s)
        y = MatMul(a, w)
    """
    sizes = {"last": np.array([-1]), "middle": np.array([1])}
    weights = {**random_weights(table=(words, width), w=(width, 6)), **sizes}
    inputs = f"int64[N, {length}] input_ids, int64[N, {length}] attention_mask"
    return graph(body, weights, inputs=inputs, outputs=f"float[N, {length}, 6] y")


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


# -- padding ----------------------------------------------------------------------------------------------------------


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


# -- tokenizers -------------------------------------------------------------------------------------------------------


def write_tokenizer(path: Path, words: int = 40) -> None:
    """Write a tokenizer that knows the commonest words of the sentences, the others as [UNK]."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[PAD]": 0, "[UNK]": 1}
    for word in " ".join(SENTENCES).split():
        if len(vocabulary) < words:
            vocabulary.setdefault(word, len(vocabulary))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))


@pytest.mark.parametrize("folder", [".", "onnx"])
def test_sentences_are_read_where_a_tokenizer_lies_beside_the_model(tmp_path, folder):
    write_tokenizer(tmp_path / "tokenizer.json", words=2000)
    path = tmp_path / folder / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(encoder(words=2000), path)
    found = samples_for(load(path), count=30)
    assert found.source == "synthetic (input_ids: sentences, attention_mask: mask)"
    words = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    texts = {number: word for word, number in words.items()}
    first = [texts[token] for token in found.arrays["input_ids"][0] if token]
    assert any(sentence.split() == first[: len(sentence.split())] for sentence in SENTENCES)
    lengths = found.arrays["attention_mask"].sum(axis=1)
    assert lengths.min() < lengths.max()


def test_a_tokenizer_of_another_model_is_passed_over(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", words=90)
    onnx.save(encoder(), tmp_path / "model.onnx")
    assert "input_ids: words" in samples_for(load(tmp_path / "model.onnx"), count=5).source


DAMAGED = {
    "not one": (lambda _: {}, "beside the model cannot be used: Model missing"),
    "no word for the unknown": (lambda t: t["model"]["vocab"].pop("[UNK]"), "Missing [UNK] token"),
    # the Rust code of the package ends in a panic, which Python sees as no Exception
    "an unknown special token": (
        lambda t: t.update(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        ),
        "no entry found for key",
    ),
    "a text for each letter": (
        lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": "the " * 1000}),
        "makes 3000 tokens of 'the'; move tokenizer.json away",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_tokenizer_is_named(tmp_path, case):
    damage, reason = DAMAGED[case]
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path)
    stored = json.loads(path.read_text())
    path.write_text("{}" if damage(stored) == {} else json.dumps(stored))
    onnx.save(encoder(), tmp_path / "model.onnx")
    with pytest.raises(SampleError, match=re.escape(reason)):
        samples_for(load(tmp_path / "model.onnx"), count=5)


def test_a_model_in_memory_has_no_tokenizer_beside_it():
    assert tokenizer_beside(encoder()) is None


def test_a_length_written_into_the_graph_keeps_the_rows_whole():
    proto = encoder()
    proto.graph.node.insert(1, onnx.helper.make_node("Add", ["e", "places"], ["placed"]))
    proto.graph.node[4].input[0] = proto.graph.node[6].input[0] = "placed"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 4), np.float32), "places"))
    model = load(proto)
    padded = samples_for(model, count=12)
    assert unpadded(padded, original_runner(model)) is padded


# -- more texts out of few --------------------------------------------------------------------------------------------


def users_samples(count: int = 6, step: int = 10) -> Samples:
    """Texts 1, words 10 i .. 10 i + 3 + i, 2, as a user gives them: padded to the longest."""
    texts = [[1, *range(step * i, step * i + 3 + i), 2] for i in range(1, count + 1)]
    width = max(map(len, texts))
    arrays = {
        "input_ids": np.array([text + [0] * (width - len(text)) for text in texts]),
        "attention_mask": np.array([[1] * len(text) + [0] * (width - len(text)) for text in texts]),
        "token_type_ids": np.zeros((count, width), np.int64),
    }
    given = Samples(tuple(row(name, width) for name in arrays), arrays, None, "file.npz")
    return without_padding(given, lambda feed: True)


def test_texts_are_put_together_from_the_user_s():
    given = users_samples()
    found = with_recombined_texts(given, 50)
    assert found.count == 50
    assert found.lengths is not None
    assert (np.diff(found.lengths) <= 0).all()
    assert found.inputs[0].shape == (64,)
    ids, mask = found.arrays["input_ids"], found.arrays["attention_mask"]
    assert_array_equal(mask, np.arange(64) < found.lengths[:, None])
    assert (ids[mask == 0] == 0).all()
    bodies = {tuple(range(10 * i, 10 * i + 3 + i)) for i in range(1, 7)}
    for text, length in zip(ids, found.lengths, strict=True):
        assert (text[0], text[length - 1]) == (1, 2)
        words = text[1 : length - 1].tolist()
        while words:
            body = next(b for b in bodies if b[0] == words[0])
            assert tuple(words[: len(body)]) == body[: len(words)]
            words = words[len(body) :]
    assert {tuple(text) for text in given.arrays["input_ids"]} <= {tuple(t[: given.inputs[0].shape[0]]) for t in ids}


def test_no_texts_are_put_together_where_there_are_enough_or_where_they_are_none():
    given = users_samples()
    assert with_recombined_texts(given, 6) is given
    padded = samples_for(load(encoder(16)), count=6)
    assert with_recombined_texts(padded, 50) is padded
    pictures = synthetic_samples([ResolvedInput("x", np.dtype(np.float32), (3, 8, 8))], 3, 0)
    assert with_recombined_texts(pictures, 50) is pictures


def test_sentences_that_judge_are_none_of_those_that_are_fitted_on(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", words=2000)
    onnx.save(encoder(words=2000), tmp_path / "model.onnx")
    samples = unpadded(
        samples_for(load(tmp_path / "model.onnx"), count=200), original_runner(load(encoder(words=2000)))
    )
    fitted, judged = ({tuple(pair) for pair in pairs(part)} for part in samples.split())
    # the same pair of words may stand in two sentences
    assert len(judged - fitted) > 0.8 * len(judged)


def test_texts_of_different_parts_share_no_sentence(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", words=2000)
    onnx.save(encoder(words=2000), tmp_path / "model.onnx")
    samples, _ = samples_for(load(tmp_path / "model.onnx"), count=200).split()
    assert np.unique(samples.parts).tolist() == list(range(10))
    # the tokenizer splits at spaces, so that a sentence's last word ends with its mark
    found = [{tuple(text) for text in sentences_of(samples, part)} for part in range(10)]
    for part, other in itertools.combinations(range(10), 2):
        assert len(found[part] & found[other]) < 0.2 * len(found[part])
    assert joined([samples, samples]).parts is not None


def sentences_of(samples: Samples, part: int):
    """Yield each four words that follow each other in the texts of a part."""
    for text in samples.arrays["input_ids"][samples.parts == part]:
        words = [word for word in text.tolist() if word]
        yield from zip(*(words[first:] for first in range(4)), strict=False)


def test_texts_put_together_from_many_of_the_user_s_are_divided_too():
    given = users_samples(40, step=100)
    found = with_recombined_texts(given, 200)
    assert found.parts is not None
    bodies = {100 * i: i for i in range(1, 41)}
    makers = defaultdict(set)
    for text, part in zip(found.arrays["input_ids"], found.parts, strict=True):
        makers[part] |= {bodies[word] for word in text.tolist() if word in bodies}
    assert sorted(number for numbers in makers.values() for number in numbers) == list(range(1, 41))
    assert with_recombined_texts(users_samples(39), 200).parts is None


def pairs(samples: Samples):
    """Yield the words that follow each other."""
    for text, mask in zip(samples.arrays["input_ids"], samples.arrays["attention_mask"], strict=True):
        words = text[mask != 0]
        yield from zip(words[:-1].tolist(), words[1:].tolist(), strict=True)


@pytest.mark.parametrize("how", ["auto", "data"])
def test_sentences_are_solved_on_beside_few_given_texts_where_the_tokenizer_is_at_hand(tmp_path, how):
    write_tokenizer(tmp_path / "tokenizer.json", words=2000)
    onnx.save(encoder(words=20_000), tmp_path / "model.onnx")
    ids = np.zeros((60, 12), np.int64)
    for number in range(60):
        ids[number, : 4 + number % 9] = 10_000 + 100 * number + np.arange(4 + number % 9)
    data = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
    options = Options(ratio=0.5, data=data, reconstruct=how)
    sets = draw_samples(load(tmp_path / "model.onnx"), options)
    assert sets.solving is not None
    assert sets.verifying is not None
    assert sets.solving.lengths is not None
    assert (np.diff(sets.solving.lengths) <= 0).all()
    assert not sets.solving.made_up
    first = sets.solving.arrays["input_ids"][:, 0]
    shares = np.mean(first < 2000), np.mean(first >= 10_000)
    np.testing.assert_allclose(shares, (0.5, 0.5) if how == "auto" else (0, 1), atol=0.01)
    assert (sets.verifying.arrays["input_ids"][:, 0] >= 10_000).all()
    # no given text stands in two parts
    owners = {(text[0] - 10_000) // 100: set() for text in ids}
    for text, part in zip(sets.solving.arrays["input_ids"], sets.solving.numbers(), strict=True):
        for word in text[text >= 10_000]:
            owners[(word - 10_000) // 100].add(part)
    assert all(len(parts) <= 1 for parts in owners.values())
