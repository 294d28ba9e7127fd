"""Small models of operators that random graphs and onnx's tests lack or have in one form only.

recurrent       LSTM, GRU and RNN, in both directions, with states and peepholes
attention       onnx's Attention and RotaryEmbedding, and onnxruntime's kinds of attention
fused           what onnxruntime fuses: layers with activations, sums with normalizations, embeddings
quantized       MatMulNBits with 4 and 8 bits, with and without zero points
products        Einsum, with weights and of activations
block           a transformer's, with its residual stream
words, states   inputs that are made up as texts, and states that the model itself makes
classifier      a picture classifier with BatchNormalization, whose agreement on real pictures is estimated
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["OPERATOR_MODELS"]

Arrays = Mapping[str, NDArray[np.generic]]
MS = "com.microsoft"
WORDS, HEADS = "float[N, 5, 8] x", "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"


def _model(body: str, weights: Arrays, inputs: str = WORDS, outputs: str = "float[N, 5, 3] y") -> onnx.ModelProto:
    opset = 23 if "RotaryEmbedding" in body or " Attention" in body else 17
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "{MS}" : 1]>'
    model = onnx.parser.parse_model(f"{header} operators ({inputs}) => ({outputs}) {{ {body} }}")
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items())
    return model


def _random(**shapes: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _recurrent(operator: str, gates: int, directions: int, more: str = "") -> onnx.ModelProto:
    way = "bidirectional" if directions == 2 else "forward"
    extra = {"s": (directions, 1, 6), "c": (directions, 1, 6), "p": (directions, 18)}
    shapes = {"w": (directions, 6 * gates, 8), "r": (directions, 6 * gates, 6), "b": (directions, 12 * gates)}
    weights = _random(**shapes, **{name: extra[name] for name in "scp" if name in more}, u=(6 * directions, 3))
    flat = np.array([0, 0, -1])
    body = (
        "t = Transpose <perm = [1, 0, 2]> (x) "
        f'h = {operator} <hidden_size = 6, direction = "{way}"> (t, w, r, b{more}) '
        "z = Transpose <perm = [2, 0, 1, 3]> (h) f = Reshape(z, flat) y = MatMul(f, u)"
    )
    batch = "1" if more else "N"
    return _model(body, weights | {"flat": flat}, f"float[{batch}, 5, 8] x", f"float[{batch}, 5, 3] y")


def _attention(operator: str, width: int = 8, **more: tuple[int, ...]) -> onnx.ModelProto:
    weights = _random(wq=(8, 8), wk=(8, width), wv=(8, width), wo=(8, 3), **more)
    return _model(f"{HEADS} a = {operator} y = MatMul(a, wo)", weights)


def _packed_attention() -> onnx.ModelProto:
    weights = _random(w=(8, 24), b=(24,), wo=(8, 3))
    return _model(f"a = {MS}.Attention <num_heads = 2> (x, w, b) y = MatMul(a, wo)", weights)


def _sized_attention() -> onnx.ModelProto:
    weights = _random(w=(8, 20), b=(20,), wo=(4, 3))
    operator = f"{MS}.Attention <num_heads = 2, unidirectional = 1, qkv_hidden_sizes = [8, 8, 4]>"
    return _model(f"a = {operator} (x, w, b) y = MatMul(a, wo)", weights)


def _turning() -> onnx.ModelProto:
    """Queries and keys turned by their positions."""
    turned = " ".join(f"{n}t = RotaryEmbedding <num_heads = 2> ({n}, cos, sin)" for n in "qk")
    cache = _random(wq=(8, 8), wk=(8, 8), wv=(8, 8), wo=(8, 3), cos=(1, 5, 2), sin=(1, 5, 2))
    body = f"{HEADS} {turned} a = Attention <q_num_heads = 2, kv_num_heads = 2> (qt, kt, v) y = MatMul(a, wo)"
    return _model(body, cache, "float[1, 5, 8] x", "float[1, 5, 3] y")


def _fused_layers() -> onnx.ModelProto:
    body = (
        f'a = {MS}.FusedConv <activation = "LeakyRelu", activation_params = [0.3], pads = [1, 1, 1, 1]> (x, w, k) '
        f'b = {MS}.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (a, v, k, a) '
        "p = GlobalAveragePool(b) f = Flatten(p) "
        f'g = {MS}.FusedGemm <activation = "Relu", alpha = 0.5> (f, u, l) y = Gemm(g, o)'
    )
    weights = _random(w=(6, 3, 3, 3), k=(6,), v=(6, 6, 3, 3), u=(6, 7), l=(7,), o=(7, 3))
    return _model(body, weights, "float[N, 3, 8, 8] x", "float[N, 3] y")


def _activations() -> onnx.ModelProto:
    body = (
        f"a = {MS}.FusedMatMul <alpha = 0.5, transB = 1> (x, w) b = {MS}.BiasGelu(a, k) c = MatMul(b, v) "
        f"d = {MS}.FastGelu(c, l) e = {MS}.QuickGelu <alpha = 1.0> (d) f = {MS}.Gelu(e) y = MatMul(f, u)"
    )
    return _model(body, _random(w=(6, 8), k=(6,), v=(6, 7), l=(7,), u=(7, 3)))


def _normalizations() -> onnx.ModelProto:
    body = (
        f"e, n = {MS}.EmbedLayerNormalization <epsilon = 0.00001> (x, , words, places, , g, b) "
        f"h = MatMul(e, w) r = Relu(h) o = MatMul(r, v) "
        f"s = {MS}.SkipLayerNormalization <epsilon = 0.00001> (o, e, g, b, c) "
        f"t = {MS}.SkipSimplifiedLayerNormalization <epsilon = 0.00001> (s, o, g) y = MatMul(t, u)"
    )
    weights = _random(words=(9, 8), places=(5, 8), g=(8,), b=(8,), c=(8,), w=(8, 12), v=(12, 8), u=(8, 3))
    return _model(body, weights, "int32[N, 5] x")


def _blocks(bits: int, *, zeros: bool) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    count, columns = 2, 12  # of blocks of 16 rows each
    weights: dict[str, NDArray[np.generic]] = _random(m=(8, 32), s=(columns * count,), u=(columns, 3))
    weights["q"] = rng.integers(0, 256, (columns, count, 16 * bits // 8)).astype(np.uint8)
    if zeros:
        weights["z"] = rng.integers(0, 256, columns * -(-count * bits // 8)).astype(np.uint8)
    form = f"K = 32, N = {columns}, bits = {bits}, block_size = 16"
    product = f"{MS}.MatMulNBits <{form}> (r, q, s{', z' * zeros})"
    body = f"a = MatMul(x, m) r = Relu(a) n = {product} t = Relu(n) y = MatMul(t, u)"
    return _model(body, weights)


def _products() -> onnx.ModelProto:
    body = (
        'q = Einsum <equation = "bsd,dhk->bshk"> (x, wq) k = Einsum <equation = "bsd,dhk->bshk"> (x, wk) '
        'v = Einsum <equation = "bsd,dhk->bshk"> (x, wv) l = Einsum <equation = "bqhd,bkhd->bhqk"> (q, k) '
        'p = Softmax(l) c = Einsum <equation = "bhqk,bkhd->bqhd"> (p, v) '
        'o = Einsum <equation = "bshk,hkd->bsd"> (c, wo) y = MatMul(o, u)'
    )
    return _model(body, _random(wq=(8, 2, 4), wk=(8, 2, 4), wv=(8, 2, 4), wo=(2, 4, 8), u=(8, 3)))


def _classifier() -> onnx.ModelProto:
    body = (
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) n = BatchNormalization(a, g, b, m, v) r = Relu(n) "
        "c = Conv <strides = [2, 2]> (r, u) k = BatchNormalization(c, g, b, m, v) t = Relu(k) "
        "p = GlobalAveragePool(t) f = Flatten(p) l = Gemm(f, o) y = Softmax(l)"
    )
    weights = _random(w=(8, 3, 3, 3), g=(8,), b=(8,), m=(8,), v=(8,), u=(8, 8, 3, 3), o=(8, 10))
    weights["v"] = np.abs(weights["v"]) + 0.5
    return _model(body, weights, "float[N, 3, 16, 16] x", "float[N, 10] y")


def _block() -> onnx.ModelProto:
    """A transformer's block behind its embedding, whose residual stream may be rotated."""
    body = (
        "e = MatMul(x, we) n = LayerNormalization(e, g, b) "
        "q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv) t = Transpose <perm = [0, 2, 1]> (k) l = MatMul(q, t) "
        "p = Softmax(l) c = MatMul(p, v) o = MatMul(c, wo) r = Add(e, o) m = LayerNormalization(r, g, b) "
        "h = MatMul(m, wh) a = Relu(h) d = MatMul(a, wd) s = Add(r, d) f = LayerNormalization(s, g, b) y = MatMul(f, u)"
    )
    squares = {name: (8, 8) for name in ("we", "wq", "wk", "wv", "wo")}
    return _model(body, _random(**squares, g=(8,), b=(8,), wh=(8, 16), wd=(16, 8), u=(8, 3)))


def _words() -> onnx.ModelProto:
    """Token ids with their mask."""
    body = (
        "e = Gather(words, ids) f = Cast <to = 1> (attention_mask) m = Unsqueeze(f, last) "
        "k = Mul(e, m) h = MatMul(k, w) r = Relu(h) y = MatMul(r, u)"
    )
    weights = _random(words=(64, 8), w=(8, 12), u=(12, 3)) | {"last": np.array([-1])}
    return _model(body, weights, "int64[N, 6] ids, int64[N, 6] attention_mask", "float[N, 6, 3] y")


def _states() -> onnx.ModelProto:
    """A cell whose state is an input, and comes out again."""
    body = "a = MatMul(x, w) r = Relu(a) m = MatMul(r, v) s = Add(m, state) next = Tanh(s) y = MatMul(next, u)"
    weights = _random(w=(8, 12), v=(12, 6), u=(6, 3))
    return _model(body, weights, "float[1, 8] x, float[1, 6] state", "float[1, 3] y, float[1, 6] next")


OPERATOR_MODELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "lstm": lambda: _recurrent("LSTM", 4, 1),
    "lstm with states": lambda: _recurrent("LSTM", 4, 2, ", , s, c, p"),
    "gru": lambda: _recurrent("GRU", 3, 2),
    "rnn": lambda: _recurrent("RNN", 1, 1, ", , s"),
    "attention": lambda: _attention("Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)"),
    "attention, shared keys": lambda: _attention("Attention <q_num_heads = 2, kv_num_heads = 1> (q, k, v)", 4),
    "multi-head": lambda: _attention(f"{MS}.MultiHeadAttention <num_heads = 2> (q, k, v, b)", b=(24,)),
    "packed": _packed_attention,
    "packed, sized": _sized_attention,
    "turning": _turning,
    "fused layers": _fused_layers,
    "activations": _activations,
    "normalizations": _normalizations,
    "4 bits": lambda: _blocks(4, zeros=False),
    "8 bits with zeros": lambda: _blocks(8, zeros=True),
    "products": _products,
    "classifier": _classifier,
    "block": _block,
    "words": _words,
    "states": _states,
}
