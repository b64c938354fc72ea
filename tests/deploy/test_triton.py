"""The model repository: what Triton's own messages would read from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile, Fingerprint
from normscan.deploy.triton import write_repository
from normscan.errors import UsageError

Field = descriptor_pb2.FieldDescriptorProto
TEXT, WHOLE, LONG, MESSAGE, ENUM = (
    Field.TYPE_STRING, Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_MESSAGE, Field.TYPE_ENUM
)  # fmt: skip
# The fields of triton-inference-server/common model_config.proto that a repository of ours has: name, type, repeated,
# type name. Numbers do not matter to the text format.
MESSAGES: dict[str, list[tuple[str, int, bool, str]]] = {
    "Value": [("name", TEXT, False, ""), ("data_type", ENUM, False, "DataType"), ("dims", LONG, True, "")],
    "Batching": [("preferred_batch_size", WHOLE, True, ""), ("max_queue_delay_microseconds", LONG, False, "")],
    "Group": [("kind", ENUM, False, "Kind"), ("count", WHOLE, False, "")],
    "Parameter": [("string_value", TEXT, False, "")],
    "Entry": [("key", TEXT, False, ""), ("value", MESSAGE, False, "Parameter")],
    "ModelConfig": [
        ("name", TEXT, False, ""),
        ("backend", TEXT, False, ""),
        ("max_batch_size", WHOLE, False, ""),
        ("input", MESSAGE, True, "Value"),
        ("output", MESSAGE, True, "Value"),
        ("dynamic_batching", MESSAGE, False, "Batching"),
        ("instance_group", MESSAGE, True, "Group"),
        ("parameters", MESSAGE, True, "Entry"),
    ],
}
ENUMS = {"DataType": ["TYPE_INVALID", "TYPE_FP32"], "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU"]}


@pytest.fixture(scope="module")
def parse() -> Callable[[Path], Any]:
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, repeated, of) in enumerate(fields, start=1):
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, type=kind, label=label)
            if of:
                added.type_name = f".inference.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return lambda folder: text_format.Parse((folder / "config.pbtxt").read_text(), made())


def test_the_network_is_served_as_the_bundle_has_it(
    exported: Path, tmp_path: Path, parse: Callable[[Path], Any]
) -> None:
    bundle = Bundle.open(exported)
    found = parse(write_repository(tmp_path, bundle, batch=(1, 4, 16)))
    assert (found.name, found.backend, found.max_batch_size) == ("ocad", "onnxruntime", 16)
    assert list(found.dynamic_batching.preferred_batch_size) == [4, 16]
    assert [(group.kind, group.count) for group in found.instance_group] == [(2, 1)]  # KIND_CPU
    model = tmp_path / "ocad" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    for ours, theirs in ((found.input, session.get_inputs()), (found.output, session.get_outputs())):
        shapes = {value.name: list(value.dims) for value in ours}
        assert {value.name for value in theirs} == set(shapes)
        assert all(value.data_type == 1 for value in ours)
    outputs = session.run(None, {"x": bundle.golden()["x"]})
    made = {value.name: list(out.shape[1:]) for value, out in zip(session.get_outputs(), outputs, strict=True)}
    assert {value.name: list(value.dims) for value in found.output} == made
    assert {p.key: p.value.string_value for p in found.parameters}["normscan_bundle"] == bundle.manifest["sha256"]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["config.pbtxt", "model.onnx"]


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_is_served_where_triton_has_a_backend(
    exported: Path, tmp_path: Path, parse: Callable[[Path], Any], library: str
) -> None:
    bundle = Bundle.open(exported)
    engine = EngineFile(Fingerprint("0", library, "10.13", ("sm86",), (1, 2, 4), (3, 16, 16)), b"plan")
    if library == "tensorrt-rtx":
        with pytest.raises(UsageError, match="no backend loads engines of tensorrt-rtx"):
            write_repository(tmp_path, bundle, engine=engine)
        assert list(tmp_path.iterdir()) == []
        return
    folder = write_repository(tmp_path, bundle, name="served-1", engine=engine)
    found = parse(folder)
    assert (found.name, found.backend, found.max_batch_size) == ("served-1", "tensorrt", 4)
    assert found.instance_group[0].kind == 1  # KIND_GPU
    assert (folder / "1" / "model.plan").read_bytes() == b"plan"


def test_only_what_was_written_here_is_replaced(exported: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported)
    folder = write_repository(tmp_path, bundle)
    with pytest.raises(UsageError, match="exists; choose another name or overwrite it with --force"):
        write_repository(tmp_path, bundle)
    assert write_repository(tmp_path, bundle, gpu=True, force=True) == folder
    assert "KIND_GPU" in (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text("name: 'somebody else'")
    with pytest.raises(UsageError, match="holds what normscan did not write"):
        write_repository(tmp_path, bundle, force=True)


def test_what_triton_could_not_serve_is_told(exported: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported)
    with pytest.raises(UsageError, match="--batch 32 8 1: expected three numbers of 1 or more, ascending"):
        write_repository(tmp_path, bundle, batch=(32, 8, 1))
    bundle.manifest["precision"]["name"] = "bf16"
    with pytest.raises(UsageError, match="no bf16 convolutions on the CPU"):
        write_repository(tmp_path, bundle)
    write_repository(tmp_path, bundle, gpu=True)


@pytest.mark.parametrize("name", ["a b", "../x", 'q"'])
def test_a_name_that_cannot_be_is_told(exported: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a model; expected letters"):
        write_repository(tmp_path, Bundle.open(exported), name=name)
