"""Tensors in and out of the protocol's forms, against tritonclient's own."""

import contextlib
import json
import math

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2

from sam_deploy.serving import json_codec, proto_codec
from sam_deploy.serving.classification import classified
from sam_deploy.serving.datatypes import BYTES, array_of_raw, bytes_array, datatype_of, raw_of_array
from sam_deploy.serving.failures import BadRequest
from sam_deploy.serving.message import InferRequest, InferResponse, Tensor, Wanted
from sam_deploy.serving.raw_contents import without_raw_contents

NUMBERS = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
]
SHAPES = hnp.array_shapes(max_dims=4, max_side=4)
ARRAYS = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: hnp.arrays(
        dtype, SHAPES, elements={"allow_nan": False, "allow_infinity": False}
        if dtype.startswith("float") else None,
    )
)  # fmt: skip
TEXTS = st.lists(st.binary(max_size=9), min_size=1, max_size=6).map(
    lambda elements: bytes_array(elements, [len(elements)])
)


def decoded(message):
    return proto_codec.decode_infer(*proto_codec.parse_infer(message.SerializeToString()))


def given_to(module, array, name="x", **options):
    made = module.InferInput(name, list(array.shape), datatype_of(array.dtype))
    made.set_data_from_numpy(array, **options)
    return made


@given(ARRAYS | TEXTS)
def test_bytes_and_back(array):
    raw = memoryview(raw_of_array(array))
    again = array_of_raw(raw, datatype_of(array.dtype), array.shape, "x")
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype


@settings(max_examples=60)
@given(ARRAYS | TEXTS, st.booleans(), st.text(max_size=5))
def test_what_tritonclients_http_sends_is_read(array, binary, request_id):
    if not binary and array.dtype == object:
        array = bytes_array([b"text \xc3\xa9"] * array.size, array.shape)
    if not binary and array.dtype == np.float16:
        return  # the client refuses to
    body, size = triton_http.InferenceServerClient.generate_request_body(
        [given_to(triton_http, array, binary_data=binary)], request_id=request_id
    )
    request = json_codec.decode_infer("m", "", bytes(body), size)
    (tensor,) = request.inputs
    np.testing.assert_array_equal(tensor.array, array)
    assert (tensor.name, request.id) == ("x", request_id)


@settings(max_examples=60)
@given(ARRAYS | TEXTS, st.booleans())
def test_what_tritonclients_http_reads_is_what_was_meant(array, binary):
    if array.dtype == object and not binary:
        array = bytes_array([b"abc"] * array.size, array.shape)
    if array.dtype == np.float16 and not binary:
        return
    response = InferResponse("m", "1", "7", (Tensor("y", datatype_of(array.dtype), array),))
    body, size = json_codec.encode_infer(response, InferRequest("m", "", "7", (), binary=binary))
    found = triton_http.InferenceServerClient.parse_response_body(body, header_length=size)
    y = found.as_numpy("y")
    if not binary and array.dtype == object:  # as text
        y = bytes_array([text.encode() for text in y.flat], y.shape)
    np.testing.assert_array_equal(y.astype(array.dtype), array)
    assert found.get_response()["id"] == "7"


@settings(max_examples=60)
@given(ARRAYS | TEXTS)
def test_what_tritonclients_grpc_sends_and_reads(array):
    message = triton_grpc._utils._get_inference_request(
        model_name="m", inputs=[given_to(triton_grpc, array)], model_version="", request_id="r",
        outputs=None, sequence_id=0, sequence_start=False, sequence_end=False, priority=0,
        timeout=1500, parameters=None,
    )  # fmt: skip
    request = decoded(message)
    np.testing.assert_array_equal(request.inputs[0].array, array)
    assert (request.id, request.timeout_s) == ("r", 0.0015)
    response = InferResponse("m", "1", "r", (Tensor("y", datatype_of(array.dtype), array),))
    found = triton_grpc.InferResult(proto_codec.encode_infer(response)).as_numpy("y")
    np.testing.assert_array_equal(found, array)


RAWS = service_pb2.ModelInferRequest(
    model_name="m", id="7", inputs=[{"name": "x", "datatype": "FP32", "shape": [2, 300]}],
    raw_input_contents=[bytes(range(200)) * 12, b""], outputs=[{"name": "y"}],
).SerializeToString()  # fmt: skip


@settings(max_examples=300)
@given(st.data())
def test_raw_contents_are_taken_out_as_protobuf_would_read_them(data):
    """Of whole messages, of torn ones, and of any bytes."""
    sent = bytearray(RAWS + data.draw(st.sampled_from([b"", b"\x3a\x03abc", b"\x50\x07", b"\x02"])))
    for _ in range(data.draw(st.integers(0, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    sent = bytes(sent[: data.draw(st.integers(0, len(sent)))])
    try:
        expected = service_pb2.ModelInferRequest.FromString(sent)
    except DecodeError:
        with pytest.raises(DecodeError):
            proto_codec.parse_infer(sent)
        return
    message, raws = proto_codec.parse_infer(sent)
    assert [bytes(raw) for raw in raws] == list(expected.raw_input_contents)
    for one in (message, expected):
        del one.raw_input_contents[:]
    assert message == expected


def test_many_small_fields_are_left_to_protobuf():
    sent = service_pb2.ModelInferRequest(raw_input_contents=[b"x"] * 100).SerializeToString()
    assert without_raw_contents(sent) == (sent, [])


@given(ARRAYS.filter(lambda a: a.dtype != np.float16) | TEXTS)
def test_typed_contents(array):
    datatype = datatype_of(array.dtype)
    message = service_pb2.ModelInferRequest(model_name="m")
    one = message.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(one.contents, proto_codec._FIELDS[datatype]).extend(array.ravel().tolist())
    np.testing.assert_array_equal(decoded(message).inputs[0].array, array)


def in_json(**change):
    one = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **change}
    return json.dumps({"inputs": [{k: v for k, v in one.items() if v is not None}]}).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datatype": "FP31"}, "unknown datatype 'FP31'"),
        ({"datatype": "BF16"}, "unknown datatype 'BF16'"),
        ({"shape": [1, -2]}, "each size must be at least 1"),
        ({"shape": [0]}, "each size must be at least 1"),
        ({"shape": [1, 3]}, r"has 2 elements; \[1, 3\] takes 3"),
        ({"shape": [2**62, 2**62]}, "has 2 elements"),
        ({"shape": [1] * 99}, "99 dims"),
        ({"shape": [1.5]}, "Expected `int`"),
        ({"data": [1, "2"]}, "has str among its elements; expected FP32"),
        ({"data": [1, True]}, "has bool among its elements"),
        ({"data": [1, None]}, "has NoneType among its elements"),
        ({"data": [1, 1e39]}, "beyond the range of FP32"),
        ({"datatype": "FP16", "data": [1, 1e10]}, "beyond the range of FP16"),
        ({"datatype": "UINT8", "data": [1, 256]}, "beyond the range of UINT8"),
        ({"datatype": "UINT8", "data": [1, -1]}, "beyond the range of UINT8"),
        ({"datatype": "INT64", "data": [1, 2**70]}, "beyond|cannot be read|among"),
        ({"datatype": "INT8", "data": [1, 2.5]}, "has float among its elements"),
        ({"datatype": "BYTES", "data": [1, 2]}, "has int among its elements"),
        ({"data": None}, "needs either data or binary_data_size"),
        ({"parameters": {"binary_data_size": 8}}, "needs either data or binary_data_size"),
        ({"data": None, "parameters": {"binary_data_size": 8}}, "binary_data_size 8; 0 bytes"),
        ({"data": None, "parameters": {"binary_data_size": -1}}, "binary_data_size -1"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"name": 3}, "Expected `str`"),
    ],
)
def test_what_is_wrong_in_json_is_said(change, said):
    with pytest.raises(BadRequest, match=said):
        json_codec.decode_infer("m", "", in_json(**change), None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"inputs": 3}', b'{"inputs": [{}]}',
        b'{"inputs": ' + b"[" * 100_000, b'{"inputs": [], "id": 3}',
        b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": -1}}]}',
        b'{"inputs": [], "parameters": {"timeout": -5}}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": '
        + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1e999]}]}',
    ],
)  # fmt: skip
def test_what_is_no_request(body):
    with pytest.raises(BadRequest):
        json_codec.decode_infer("m", "", body, None)


@pytest.mark.parametrize(
    ("size", "said"), [(999, "the body has"), (-1, "the body has"), (0, "not an")]
)
def test_a_wrong_header_length(size, said):
    with pytest.raises(BadRequest, match=said):
        json_codec.decode_infer("m", "", in_json(), size)


def test_bytes_that_follow_are_counted():
    body = in_json()
    with pytest.raises(BadRequest, match="3 bytes follow the last input"):
        json_codec.decode_infer("m", "", body + b"abc", len(body))


@pytest.mark.parametrize(
    ("raw", "count", "said"),
    [
        (b"\x05\x00\x00\x00ab", 1, "ends within element 0, which has 5 bytes"),
        (b"\x01\x00\x00\x00a", 2, "ends before element 1|too few"),
        (b"\x01\x00\x00\x00ab", 1, "1 bytes more than its 1 elements"),
        (b"\xff\xff\xff\xff", 1, "ends within element 0, which has 4294967295 bytes"),
        (b"", 2**60, "too few"),
    ],
)
def test_bytes_of_wrong_lengths(raw, count, said):
    with pytest.raises(BadRequest, match=said):
        array_of_raw(memoryview(raw), BYTES, [count], "x")


def test_nan_has_no_form_in_json_and_has_one_in_bytes():
    tensor = Tensor("y", "FP32", np.array([1, np.nan], np.float32))
    response = InferResponse("m", "1", "", (tensor,))
    with pytest.raises(BadRequest, match="output y has NaN or infinity"):
        json_codec.encode_infer(response, InferRequest("m", "", "", ()))
    wanted = (Wanted("y", binary=True),)
    body, size = json_codec.encode_infer(response, InferRequest("m", "", "", (), wanted))
    assert math.isnan(np.frombuffer(body[size:], np.float32)[1])


@settings(max_examples=300)
@given(st.data())
def test_mutated_requests_raise_nothing_but_what_is_answered(data):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    body, size = triton_http.InferenceServerClient.generate_request_body(
        [given_to(triton_http, x, binary_data=data.draw(st.booleans()))],
        outputs=[triton_http.InferRequestedOutput("y", class_count=2)],
    )
    body = bytearray(body)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    size = data.draw(st.sampled_from([size, None, 0, cut]))
    for part in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(BadRequest):
            json_codec.decode_infer("m", "", part, size)


def test_classes():
    scores = np.array([[0.1, 0.7, 0.2], [3, 1, 2]], np.float32)
    found = classified(Tensor("y", "FP32", scores), 2, ["a", "b", "c"])
    assert found.array.tolist() == [
        [b"0.700000:1:b", b"0.200000:2:c"],
        [b"3.000000:0:a", b"2.000000:2:c"],
    ]
    assert classified(Tensor("y", "FP32", scores), 9, []).array[0, 0] == b"0.700000:1"
    with pytest.raises(BadRequest, match="classes are of"):
        classified(Tensor("y", "FP32", scores[0]), 2, [])
