"""Sentences where a tokenizer lies beside the model, and tokenizers that cannot be used."""

import itertools
import json
import re

import numpy as np
import onnx
import pytest
from text_models import encoder, write_tokenizer

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples, joined
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.inputs.sentences import SENTENCES
from onnx_tropnnc.inputs.tokenized import tokenizer_beside
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.made_up_samples import original_runner, unpadded
from onnx_tropnnc.sample_sets import draw_samples


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
