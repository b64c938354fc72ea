"""What the native border takes and what it refuses, the same for every op.

`CALLS` declares one small valid call of each op; every test changes one argument of it.
Longer than 400 lines because the table of calls has an entry for every op: it is the point of the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from arrays import LAYOUTS, Array, misaligned, normal, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import attention as reference


class Call(NamedTuple):
    """One valid call: tensors by name in the order of the signature, the names that are written, and the options."""

    tensors: dict[str, Array]
    outputs: tuple[str, ...]
    options: dict[str, Any]


def _gaussian() -> Call:
    tensors = {"z": normal(2, 3, 4, 5), "mean": normal(3), "whitener": normal(3, 3), "out": unwritten(2, 4, 5)}
    return Call(tensors, ("out",), {})


def _gaussian_backward() -> Call:
    tensors = {"grad_out": normal(2, 4, 5), "z": normal(2, 3, 4, 5), "mean": normal(3), "whitener": normal(3, 3)}
    tensors |= {"grad_z": unwritten(2, 3, 4, 5), "grad_mean": unwritten(3), "grad_whitener": unwritten(3, 3)}
    return Call(tensors, ("grad_z", "grad_mean", "grad_whitener"), {})


def _gaussian_positions() -> Call:
    tensors = {"z": normal(2, 3, 4, 5), "mean": normal(3, 4, 5), "whitener": normal(4, 5, 6), "out": unwritten(2, 4, 5)}
    return Call(tensors, ("out",), {})


def _gaussian_positions_whitener() -> Call:
    tensors = {"scatter": np.tile([1, 0.1, 2, 0.2, 0.3, 3], (4, 5, 1)), "whitener": unwritten(4, 5, 6, dtype="float64")}
    return Call(tensors, ("whitener",), {"count": 3, "shrinkage": 0.1})


def _distance(metric: str) -> Callable[[], Call]:
    def make() -> Call:
        tensors = {"a": uniform(2, 3, 4, 5), "b": uniform(2, 3, 4, 5, seed=1), "out": unwritten(2, 4, 5)}
        return Call(tensors, ("out",), {"metric": metric})

    return make


def _distance_backward(metric: str) -> Callable[[], Call]:
    def make() -> Call:
        tensors = {"grad_out": normal(2, 4, 5), "a": uniform(2, 3, 4, 5), "b": uniform(2, 3, 4, 5, seed=1)}
        tensors |= {"grad_a": unwritten(2, 3, 4, 5), "grad_b": unwritten(2, 3, 4, 5)}
        return Call(tensors, ("grad_a", "grad_b"), {"metric": metric})

    return make


def _stain(**options: Any) -> Callable[[], Call]:
    def make() -> Call:
        tensors = {"a": uniform(2, 3, 4, 5), "b": uniform(2, 3, 4, 5, seed=1), "out": unwritten(2, 4, 5)}
        return Call(tensors, ("out",), options)

    return make


def _distance_maps() -> Call:
    shapes = [(2, 3, 4, 5), (2, 4, 2, 3)]
    tensors = {f"levels[{i}].{side}": uniform(*shapes[i], seed="ab".index(side)) for i in range(2) for side in "ab"}
    tensors |= {"out_map": unwritten(2, 6, 7), "out_score": unwritten(2)}
    options = {"metric": "l1", "weights": [1.0, 1.0], "fuse": "product", "sigma": 1.0, "pool": "max"}
    return Call(tensors, ("out_map", "out_score"), options)


def _attention() -> Call:
    tensors = {"q": normal(2, 3, 4, 5), "k": normal(2, 3, 6, 5), "v": normal(2, 3, 6, 7)}
    return Call(tensors | {"out": unwritten(2, 3, 4, 7), "lse": unwritten(2, 3, 4)}, ("out", "lse"), {"scale": 0.5})


def _attention_bias() -> Call:
    tensors = {"q": normal(2, 3, 6, 5), "k": normal(2, 3, 6, 5), "v": normal(2, 3, 6, 7), "out": unwritten(2, 3, 6, 7)}
    return Call(
        tensors | {"lse": unwritten(2, 3, 6), "bias": normal(3, 3, 5)}, ("out", "lse"), {"scale": 0.5, "grid": (2, 3)}
    )


def _attention_backward(forward: Callable[[], Call]) -> Callable[[], Call]:
    def make() -> Call:
        tensors, _, options = forward()
        inputs, bias = {name: tensors[name] for name in "qkv"}, tensors.get("bias")
        out, lse = (x.astype(np.float32) for x in reference.attention(**inputs, bias=bias, **options))
        grads = {f"grad_{name}": unwritten(*x.shape) for name, x in inputs.items()}
        table = {} if bias is None else {"bias": bias, "grad_bias": unwritten(*bias.shape)}
        tensors = {"grad_out": normal(*out.shape)} | inputs | {"out": out, "lse": lse} | grads | table
        return Call(tensors, tuple(name for name in tensors if name in grads or name == "grad_bias"), options)

    return make


def _attention_gate() -> Call:
    tensors, outputs, options = _attention_bias()
    tensors |= {"residual": normal(2, 3, 6, 7), "gamma": normal(1), "attended": unwritten(2, 3, 6, 7)}
    return Call(tensors, (*outputs, "attended"), options)


def _attention_gate_backward() -> Call:
    tensors, outputs, options = _attention_backward(_attention_bias)()
    tensors |= {"gamma": normal(1), "grad_gamma": unwritten(1)}
    return Call(tensors, (*outputs, "grad_gamma"), options)


def _prepare() -> Call:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    return Call(
        {"image": image, "out": unwritten(3, 4, 4)}, ("out",), {"resize": "fit", "mean": [0.0] * 3, "std": [1.0] * 3}
    )


def _restore() -> Call:
    return Call({"map": normal(4, 6), "out": unwritten(5, 7)}, ("out",), {"resize": "fit"})


def _resample() -> Call:
    return Call({"map": normal(2, 4, 5), "out": unwritten(2, 6, 7)}, ("out",), {})


def _smooth() -> Call:
    return Call({"map": normal(2, 4, 5), "out": unwritten(2, 4, 5)}, ("out",), {"sigma": 1.0})


def _pool() -> Call:
    return Call({"map": normal(2, 4, 5), "out": unwritten(2)}, ("out",), {"method": "mean"})


def _aggregate() -> Call:
    tensors = {
        "scores": normal(4, dtype="float64"),
        "groups": np.array([0, 1, 2, 0]),
        "out": unwritten(3, dtype="float64"),
    }
    return Call(tensors, ("out",), {"method": "mean"})


CALLS: dict[str, Callable[[], Call]] = {
    "prepare": _prepare,
    "restore": _restore,
    "gaussian": _gaussian,
    "gaussian_backward": _gaussian_backward,
    "gaussian_positions": _gaussian_positions,
    "gaussian_positions_whitener": _gaussian_positions_whitener,
    "distance": _distance("l1"),
    "distance ssim": _distance("ssim"),
    "distance_backward": _distance_backward("cosine"),
    "distance_backward ssim": _distance_backward("ssim"),
    "distance_maps": _distance_maps,
    "stain": _stain(metric="residual"),
    "stain ratio": _stain(metric="red_ratio"),
    "stain windows": _stain(metric="red_ratio", window=3),
    "attention": _attention,
    "attention bias": _attention_bias,
    "attention gate": _attention_gate,
    "attention_backward": _attention_backward(_attention),
    "attention_backward bias": _attention_backward(_attention_bias),
    "attention_backward gate": _attention_gate_backward,
    "resample": _resample,
    "smooth": _smooth,
    "pool": _pool,
    "aggregate": _aggregate,
}
ARGUMENTS = [(call, name) for call, make in CALLS.items() for name in make().tensors]
OUTPUTS = [(call, name) for call, make in CALLS.items() for name in make().outputs]
FLOATING = [(call, name) for call, name in ARGUMENTS if CALLS[call]().tensors[name].dtype.kind == "f"]


def run(call: str, tensors: dict[str, Any], options: dict[str, Any]) -> None:
    arguments = list(tensors.values())
    if call == "distance_maps":  # its first argument is a list of pairs
        arguments = [[tuple(arguments[:2]), tuple(arguments[2:4])], *arguments[4:]]
    getattr(_native, call.split(maxsplit=1)[0])(*arguments, **options)


def refused(call: str, name: str, value: object, named: tuple[str, ...] = ()) -> str:
    """Replace one tensor of a valid call; it must be refused, before anything is written, naming op and tensor.

    `named`: the tensors that may be named instead, where two contradict each other and either may be the wrong one.
    """
    tensors, outputs, options = CALLS[call]()
    with pytest.raises(ArgumentError) as caught:
        run(call, tensors | {name: value}, options)
    message = str(caught.value)
    assert re.match(rf"{call.split(maxsplit=1)[0]}: ", message), message
    assert re.search(rf"\b({'|'.join(map(re.escape, named or (name,)))})\b", message), message
    for output in outputs:
        assert output == name or np.isnan(tensors[output]).all(), f"{output} was written before {name} was checked"
    return message


@pytest.mark.parametrize("dtype", ["int32", "float16", "bool", "complex64"])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_a_wrong_dtype(call: str, name: str, dtype: str) -> None:
    found = CALLS[call]().tensors[name]
    message = refused(call, name, np.zeros(found.shape, dtype))
    assert dtype in message
    assert found.dtype.name in message


@pytest.mark.parametrize(("call", "name"), FLOATING)
def test_two_floating_dtypes_in_one_call(call: str, name: str) -> None:
    found = CALLS[call]().tensors[name]
    if (call, name) == ("prepare", "out"):
        assert "float64" in refused(call, name, found.astype("float64"))
        return
    message = refused(call, name, found.astype({"float32": "float64", "float64": "float32"}[found.dtype.name]))
    assert "float32" in message
    assert "float64" in message


@pytest.mark.parametrize("grow", [True, False])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_a_wrong_rank(call: str, name: str, grow: bool) -> None:
    found = CALLS[call]().tensors[name]
    if grow:
        value = found[None]
    elif found.ndim == 1 or (call, name) == ("prepare", "image"):  # an image [H,W] would be fine
        value = np.array(found.reshape(-1)[0])
    else:
        value = found.reshape(*found.shape[:-2], -1)
    message = refused(call, name, value)
    shape = str(list(value.shape)).replace(" ", "")
    assert shape in message or re.search(rf"\b{value.ndim}\b", message), message


# (call, tensor, axis): one more along this axis contradicts another tensor or the op itself.
AXES = [
    (call, name, axis)
    for call, name in ARGUMENTS
    for axis in range(CALLS[call]().tensors[name].ndim)
    if (call, name) not in {("restore", "map"), ("restore", "out"), ("aggregate", "out")}
    and (call, name, axis)
    not in {("prepare", "image", 0), ("prepare", "image", 1), ("prepare", "out", 1), ("prepare", "out", 2)}
    and not ((call == "resample" or name == "out_map") and axis > 0)
    and not (call == "pool" and name == "map" and axis > 0)
]


@pytest.mark.parametrize(("call", "name", "axis"), AXES)
def test_a_wrong_size(call: str, name: str, axis: int) -> None:
    found = CALLS[call]().tensors[name]
    value = np.concatenate([found, found.take([0], axis)], axis)
    message = refused(call, name, value, named=tuple(CALLS[call]().tensors))
    for size in (found.shape[axis], found.shape[axis] + 1):
        assert re.search(rf"\b{size}\b", message), f"{size} is not in: {message}"


@pytest.mark.parametrize(("call", "name"), OUTPUTS)
def test_a_read_only_output(call: str, name: str) -> None:
    value = CALLS[call]().tensors[name]
    value.flags.writeable = False
    assert re.search("read-only|readonly|writ", refused(call, name, value))
    assert np.isnan(value).all()


@pytest.mark.parametrize("call", CALLS)
def test_read_only_inputs_are_fine(call: str) -> None:
    tensors, outputs, options = CALLS[call]()
    for name, value in tensors.items():
        value.flags.writeable = name in outputs
    run(call, tensors, options)
    assert all(np.isfinite(tensors[name]).all() for name in outputs)


@pytest.mark.parametrize("step", [2, -1])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_an_inner_stride_that_is_not_one(call: str, name: str, step: int) -> None:
    found = CALLS[call]().tensors[name]
    if name.endswith("gamma"):  # one number has no strides
        return
    wide = np.repeat(found, abs(step), axis=-1)
    value = wide[..., ::step]
    assert value.shape == found.shape
    assert "stride" in refused(call, name, value)


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, name in ARGUMENTS if CALLS[call]().tensors[name].ndim in (2, 3)]
)
def test_column_major_is_not_channels_last(call: str, name: str) -> None:
    found = CALLS[call]().tensors[name]
    assert "stride" in refused(call, name, np.asfortranarray(found))


@pytest.mark.parametrize(("call", "name"), [pair for pair in ARGUMENTS if pair != ("prepare", "image")])
def test_a_byte_offset_that_splits_an_element(call: str, name: str) -> None:
    found = CALLS[call]().tensors[name]
    memory = np.zeros(found.nbytes + 1, np.uint8)
    value = memory[1:].view(found.dtype).reshape(found.shape)
    value[...] = found
    assert "align" in refused(call, name, value)


@pytest.mark.parametrize("value", [None, 1.5, [[1.0, 2.0]], "tensor"], ids=["None", "float", "list", "str"])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_an_object_without_dlpack(call: str, name: str, value: object) -> None:
    if value is None and name == "attended":  # nobody wants it: no error
        return
    optional = re.search("bias|residual|gamma", name)  # may be None, but not alone
    assert ("without" if value is None and optional else type(value).__name__) in refused(call, name, value)


@pytest.mark.parametrize(("call", "name"), FLOATING)
def test_a_tensor_that_requires_grad(call: str, name: str) -> None:
    found = CALLS[call]().tensors[name]
    message = refused(call, name, torch.from_numpy(found.copy()).requires_grad_())
    assert "detach" in message


@pytest.mark.parametrize(("call", "name"), FLOATING)
def test_a_tensor_without_memory(call: str, name: str) -> None:
    found = CALLS[call]().tensors[name]
    assert "meta" in refused(call, name, torch.from_numpy(found).to("meta"))


@pytest.mark.parametrize("call", CALLS)
def test_torch_tensors_without_a_copy(call: str) -> None:
    tensors, outputs, options = CALLS[call]()
    expected = CALLS[call]()
    run(call, expected.tensors, options)
    as_torch = {name: torch.from_numpy(value) for name, value in tensors.items()}
    run(call, as_torch, options)
    for name in outputs:
        np.testing.assert_array_equal(as_torch[name].numpy(), expected.tensors[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("call", CALLS)
def test_a_layout_changes_nothing_but_rounding(call: str, layout: str) -> None:
    tensors, outputs, options = CALLS[call]()
    expected = CALLS[call]()
    run(call, expected.tensors, options)
    placed = {name: LAYOUTS[layout](value) for name, value in tensors.items()}
    inputs = {name: placed[name].copy() for name in placed if name not in outputs}
    run(call, placed, options)
    for name in outputs:
        np.testing.assert_allclose(placed[name], expected.tensors[name], rtol=2e-4, atol=2e-5)
    for name, before in inputs.items():
        np.testing.assert_array_equal(placed[name], before)


@pytest.mark.parametrize("call", CALLS)
def test_a_strided_output_is_written_inside_its_window_only(call: str) -> None:
    tensors, outputs, options = CALLS[call]()
    wide = {name: np.full([2 * n for n in tensors[name].shape], 7, tensors[name].dtype) for name in outputs}
    windows = {name: tuple(slice(1, 1 + n) for n in tensors[name].shape) for name in outputs}
    run(call, tensors | {name: wide[name][windows[name]] for name in outputs}, options)
    for name in outputs:
        outside = np.ones(wide[name].shape, bool)
        outside[windows[name]] = False
        assert (wide[name][outside] == 7).all()
        assert (wide[name][windows[name]] != 7).any()


NO_BATCH = ("prepare", "restore", "aggregate", "gaussian_positions_whitener")


@pytest.mark.parametrize("call", [call for call in CALLS if call not in NO_BATCH])
def test_an_empty_batch(call: str) -> None:
    tensors, outputs, options = CALLS[call]()
    shared = {"mean", "whitener", "bias", "grad_mean", "grad_whitener", "grad_bias", "gamma", "grad_gamma"}
    tensors = {name: value if name in shared else value[:0] for name, value in tensors.items()}
    run(call, tensors, options)
    for name in shared & set(outputs):
        np.testing.assert_array_equal(tensors[name], np.zeros_like(tensors[name]))


def test_strides_of_axes_of_size_one_mean_nothing() -> None:
    """[..., 1] with any inner stride is contiguous; numpy and torch both produce such views."""
    wide, out = normal(2, 4, 9), unwritten(2, 4, 1)
    _native.smooth(wide[:, :, ::9], out, sigma=0.0)
    np.testing.assert_array_equal(out, wide[:, :, :1])


@pytest.mark.parametrize("call", [call for call in CALLS if call not in ("prepare", "restore", "aggregate")])
def test_an_input_with_outer_stride_zero(call: str) -> None:
    """An expanded batch (torch's expand, numpy's broadcast_to) is read in place."""
    tensors, outputs, options = CALLS[call]()
    shared = {"mean", "whitener"}
    inputs = {
        name: value if name in shared else np.broadcast_to(value[:1], value.shape)
        for name, value in tensors.items()
        if name not in outputs
    }
    copied = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    expected = {name: tensors[name].copy() for name in outputs}
    run(call, {name: copied[name] if name in copied else expected[name] for name in tensors}, options)
    run(call, {name: inputs[name] if name in inputs else tensors[name] for name in tensors}, options)
    for name in outputs:
        np.testing.assert_array_equal(tensors[name], expected[name])


@pytest.mark.parametrize("call", CALLS)
def test_tensors_one_element_off_a_vector_register(call: str) -> None:
    tensors, outputs, options = CALLS[call]()
    expected = CALLS[call]()
    run(call, expected.tensors, options)
    placed = {name: misaligned(value) for name, value in tensors.items()}
    run(call, placed, options)
    for name in outputs:
        np.testing.assert_array_equal(placed[name], expected.tensors[name])


@pytest.mark.parametrize("metric", ["l3", "", "SSIM"])
def test_an_unknown_metric_is_refused_with_the_known_ones(metric: str) -> None:
    tensors = CALLS["distance"]().tensors
    with pytest.raises(ArgumentError, match=r"distance.*metric.*relative_l1"):
        _native.distance(*tensors.values(), metric=metric)


@pytest.mark.parametrize("window", [0, -3, 4])
def test_an_even_or_negative_window_is_refused(window: int) -> None:
    tensors = CALLS["distance"]().tensors
    with pytest.raises(ArgumentError, match=rf"distance.*window.*{window}.*odd"):
        _native.distance(*tensors.values(), metric="ssim", window=window)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(threads: int) -> None:
    with pytest.raises(ArgumentError, match=rf"threads.*{threads}"):
        _native.set_threads(threads)


def test_an_argument_error_is_a_value_error_of_the_project() -> None:
    with pytest.raises(ValueError, match="smooth"):
        _native.smooth(normal(2, 4, 5), normal(2, 4, 6), sigma=1.0)


def test_what_was_borrowed_is_given_back() -> None:
    """The reference counts of the tensors are as before: a deleter that is not called leaks the memory of each call."""
    tensors = CALLS["gaussian"]().tensors
    before = {name: sys.getrefcount(value) for name, value in tensors.items()}
    for _ in range(50):
        run("gaussian", tensors, {})
        with pytest.raises(ArgumentError):
            run("gaussian", tensors | {"mean": normal(4)}, {})
    after = {name: sys.getrefcount(value) for name, value in tensors.items()}
    assert after == before
