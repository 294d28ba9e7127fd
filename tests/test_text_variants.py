"""More texts, put together from few of the user's."""

from collections import defaultdict

import numpy as np
from numpy.testing import assert_array_equal
from text_models import encoder, row

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.padding import without_padding
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.inputs.text_variants import with_recombined_texts


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
