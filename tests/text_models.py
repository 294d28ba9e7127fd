"""A small model that reads tokens, made-up texts for it, and a tokenizer that knows their words."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_hints import InputHints
from onnx_tropnnc.inputs.sentences import SENTENCES
from onnx_tropnnc.inputs.synthetic import synthetic_samples

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
