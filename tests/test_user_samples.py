"""Samples that the user has."""

import os
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_specs import InputSpec
from onnx_tropnnc.inputs import stores
from onnx_tropnnc.inputs.user_samples import load_samples

FLOAT = np.dtype(np.float32)
X = InputSpec("x", FLOAT, ("N", 3))
PICTURE = InputSpec("input:0", FLOAT, ("N", 3, 4, 5))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def saved(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_an_archive_is_read_by_the_names_of_the_inputs(tmp_path, rng):
    x = rng.standard_normal((6, 3), dtype=np.float32)
    ids = rng.integers(0, 9, (6, 2))
    path = saved(tmp_path, x=x, ids=ids, labels=np.arange(6, dtype=np.uint8), other=np.zeros(2))
    found = load_samples(path, [X, InputSpec("ids", np.dtype(np.int64), ("N", "T"))])
    assert_array_equal(found.arrays["x"], x)
    assert_array_equal(found.arrays["ids"], ids)
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert (found.count, found.source, found.inputs[1].shape) == (6, str(path), (2,))


def test_a_folder_is_read_file_by_file(tmp_path, rng):
    x = rng.standard_normal((4, 3), dtype=np.float32)
    np.save(tmp_path / "model_x.npy", x)
    np.save(tmp_path / "labels.npy", np.arange(4))
    found = load_samples(tmp_path, [InputSpec("model/x", FLOAT, ("N", 3))])
    assert_array_equal(found.arrays["model/x"], x)
    assert found.labels.tolist() == [0, 1, 2, 3]


def test_inputs_without_a_sample_axis_get_one_in_the_file(tmp_path):
    path = saved(tmp_path, x=np.zeros((3, 8), np.float32), state=np.ones((3, 2, 1, 4), np.float32), sr=np.full(3, 8000))
    specs = [InputSpec("x", FLOAT, (None, None)), InputSpec("state", FLOAT, (2, None, 4))]
    found = load_samples(path, [*specs, InputSpec("sr", np.dtype(np.int64), ())])
    feeds = [feed for _, feed in found.feeds()]
    assert [feeds[0][name].shape for name in ("x", "state", "sr")] == [(1, 8), (2, 1, 4), ()]
    assert len(feeds) == 3


def test_a_limit_takes_evenly_spaced_samples_and_a_fixed_batch_whole_runs(tmp_path):
    path = saved(tmp_path, x=np.arange(30, dtype=np.float32).reshape(10, 3))
    assert load_samples(path, [X], limit=5).arrays["x"][:, 0].tolist() == [0, 6, 12, 18, 24]
    assert load_samples(path, [InputSpec("x", FLOAT, (4, 3))]).count == 8
    assert load_samples(path, [X], given={"x": (3, 3)}).inputs[0].batch == 3


def pictures(rng, **changes):
    values = {
        "images": rng.integers(0, 256, (6, 3, 4, 5), dtype=np.uint8),
        "mean": np.array([0.5, 0.4, 0.3], np.float32),
        "std": np.array([0.2, 0.25, 0.5], np.float32),
        "labels": np.arange(6),
    } | changes
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 4, 5), (0, 1, 2, 3)), ((4, 5, 3), (0, 2, 3, 1)), ((60,), (0, 1, 2, 3)), ((60, 1), (0, 1, 2, 3))],
)
def test_pictures_are_normalised_and_laid_out(tmp_path, rng, shape, axes):
    data = pictures(rng)
    found = load_samples(saved(tmp_path, **data), [InputSpec("input:0", FLOAT, ("N", *shape))])
    wanted = (data["images"] / 255 - data["mean"][:, None, None]) / data["std"][:, None, None]
    assert found.arrays["input:0"].dtype == np.float32
    assert_allclose(found.arrays["input:0"], wanted.transpose(axes).reshape(6, *shape), rtol=1e-5, atol=1e-6)


def test_a_model_of_bytes_reads_pictures_as_they_are(tmp_path, rng):
    data = pictures(rng, mean=None, std=None)
    found = load_samples(saved(tmp_path, **data), [InputSpec("x", np.dtype(np.uint8), ("N", 3, 4, 5))])
    assert_array_equal(found.arrays["x"], data["images"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": None}, "images need mean and std beside them, std is missing"),
        ({"mean": np.zeros(2, np.float32)}, "array mean: wanted 3 values"),
        ({"std": np.zeros(3, np.float32)}, "array std: wanted 3 values, one per channel, above 0"),
        ({"std": np.full(3, 1e-45, np.float32)}, "array std is so small that pictures divided by it are infinite"),
        ({"images": np.zeros((6, 3, 4, 5), np.float32)}, "array images is float32"),
        ({"images": np.zeros((6, 3, 4), np.uint8)}, r"array images is uint8 \[6, 3, 4\]"),
        ({"images": np.zeros((6, 3, 4, 4), np.uint8)}, r"array images holds \[3, 4, 4\] each"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(tmp_path, rng, changes, message):
    with pytest.raises(SampleError, match=message):
        load_samples(saved(tmp_path, **pictures(rng, **changes)), [PICTURE])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64])
def test_values_are_cast_where_nothing_is_lost(tmp_path, dtype):
    found = load_samples(saved(tmp_path, x=np.full((2, 3), 7, dtype)), [X])
    assert found.arrays["x"].dtype == np.float32
    assert found.arrays["x"].tolist() == [[7.0] * 3] * 2


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 3), 2**24 + 1), "array x is int64 and cannot become float32"),
        (np.full((2, 3), 1e300), "array x is float64 and cannot become float32"),
        (np.ones((2, 3), bool), "array x is bool and cannot become float32"),
        (np.full((2, 3), "a"), "array x is <U1, not numbers"),
        (np.ones((2, 3), complex), "array x is complex128, not numbers"),
        (np.array([[1, 2, np.nan]]), "array x holds NaN or infinite values"),
        (np.zeros((0, 3)), r"array x is empty: \[0, 3\]"),
        (np.float32(1), r"array x is empty: \[\]|array x is .*samples are counted on axis 0"),
        (np.zeros((2, 4)), r"a sample of \[4\] does not fit the model's input x float32 \[N, 3\]"),
        (np.zeros((2, 3, 1)), r"a sample of \[3, 1\] does not fit"),
        (np.array([[None] * 3]), r"array x holds no plain numbers \(pickled objects are never read\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, array, message):
    with pytest.raises(SampleError, match=rf"data\.npz.*{message}") as caught:
        load_samples(saved(tmp_path, x=array), [X])
    assert "\n" not in str(caught.value)


def test_fractions_are_no_tokens(tmp_path):
    with pytest.raises(SampleError, match="cannot become int64"):
        load_samples(saved(tmp_path, x=np.full((2, 3), 0.5)), [InputSpec("x", np.dtype(np.int64), ("N", 3))])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((2, 3))}, "no array named x for the model's input; arrays there: y"),
        ({"x": np.zeros((2, 3)), "labels": np.zeros(3, int)}, "differ in their number of samples"),
        ({"x": np.zeros((2, 3)), "labels": np.zeros((2, 2), int)}, r"array labels is int64 \[2, 2\]"),
        ({"x": np.zeros((2, 3)), "labels": np.zeros(2)}, "array labels is float64"),
    ],
)
def test_archives_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(SampleError, match=message):
        load_samples(saved(tmp_path, **arrays), [X])


def test_too_few_samples_for_one_run_are_refused(tmp_path):
    with pytest.raises(SampleError, match="too few samples, one run of the model takes 4"):
        load_samples(saved(tmp_path, x=np.zeros((3, 3))), [InputSpec("x", FLOAT, (4, 3))])


def test_files_that_are_no_archives_are_refused(tmp_path):
    with pytest.raises(SampleError, match=r"absent\.npz: no such file"):
        load_samples(tmp_path / "absent.npz", [X])
    (tmp_path / "text.npz").write_text("not numbers")
    with pytest.raises(SampleError, match=r"text\.npz: not an \.npz archive"):
        load_samples(tmp_path / "text.npz", [X])
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(SampleError, match=r"not an \.npz archive"):
        load_samples(tmp_path / "x.npy", [X])
    whole = saved(tmp_path, x=np.zeros((100, 3))).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-200])
    with pytest.raises(SampleError, match=r"cut\.npz cannot be read"):
        load_samples(tmp_path / "cut.npz", [X])
    (tmp_path / "empty.npz").touch()
    with pytest.raises(SampleError, match=r"empty\.npz: not an \.npz archive"):
        load_samples(tmp_path / "empty.npz", [X])
    (tmp_path / "folder").mkdir()
    with pytest.raises(SampleError, match="arrays there: none"):
        load_samples(tmp_path / "folder", [X])


def test_a_damaged_member_is_refused(tmp_path, rng):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=rng.standard_normal((500, 3)))
    whole = bytearray(path.read_bytes())
    whole[2000:2040] = bytes(40)
    path.write_bytes(whole)
    with pytest.raises(SampleError, match=r"data\.npz: array x cannot be read"):
        load_samples(path, [X])


def header(shape: str) -> bytes:
    """Return a .npy file that ends after its header."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + f"{text}\n".encode()


@pytest.mark.parametrize(
    "shape",
    ["(1000000000000,)", "(1000000000, 3)", "(-5,)", "(2, 3)", "(10**9,)", "('a', 3)", "(-1, 0)", "(-1, 7)", "((((("],
)
def test_headers_that_claim_what_is_not_there_are_refused_before_reading(tmp_path, shape):
    (tmp_path / "x.npy").write_bytes(header(shape))
    with pytest.raises(SampleError, match=r"^[^\n]*x\.npy [^\n]*$"):
        load_samples(tmp_path, [X])
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header(shape))
    with pytest.raises(SampleError, match=r"^[^\n]*x\.npz: array x [^\n]*$"):
        load_samples(tmp_path / "x.npz", [X])


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    os.symlink("/dev/zero", tmp_path / "y.npy")
    for name in ("x", "y"):
        with pytest.raises(SampleError, match=rf"{name}\.npy: not a regular file"):
            load_samples(tmp_path, [InputSpec(name, FLOAT, ("N", 3))])
        with pytest.raises(SampleError, match=rf"{name}\.npy: not a regular file"):
            load_samples(tmp_path / f"{name}.npy", [X])
    with pytest.raises(SampleError, match=r"^/dev/zero: not a regular file"):
        load_samples("/dev/zero", [X])


def test_an_archive_in_the_place_of_an_array_is_refused(tmp_path):
    saved(tmp_path, x=np.zeros((2, 3))).rename(tmp_path / "x.npy")
    with pytest.raises(SampleError, match=r"x\.npy: not an \.npy file but an archive"):
        load_samples(tmp_path, [X])


@pytest.mark.parametrize("name", ["a" * 5000, "b/" * 2500, "nul\0.npz", "absent/" * 40])
def test_names_that_no_file_can_have_are_refused_in_one_short_line(name):
    with pytest.raises(SampleError) as refusal:
        load_samples(name, [X])
    assert len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(stores, "LARGE_ENTRY", 2**16)
    measured = rng.standard_normal((20_000, 3), dtype=np.float32)
    np.savez_compressed(tmp_path / "data.npz", x=measured)
    assert load_samples(tmp_path / "data.npz", [X]).count == 20_000
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros_like(measured))
    with pytest.raises(SampleError, match=r"array x unpacks from 0\.0 MB to 0\.0 GB, as no samples do"):
        load_samples(tmp_path / "data.npz", [X])
