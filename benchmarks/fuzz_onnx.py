"""Mutations of ONNX models that keep the protobuf readable: names, types, sizes, graphs, references to files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from fuzz_bytes import EDITS
from fuzz_seeds import Model, text
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

Proto = onnx.ModelProto

INTS = (0, 1, -1, 2, 7, 63, 64, 65, 255, 2**15, 2**31 - 1, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, -3e38, float("inf"), float("-inf"), float("nan"), 1e-8, 88.8)
WORDS = (
    "", "x", "y", "e", "axes", "ai.onnx", "com.example", "local", "soft", "Softmax", "Exp", "Log", "Sum", "If", "Loop",
    "\0", "a\nb", "é" * 3, "../x", "/etc/passwd", "n" * 70_000, "%s%n{0}", "[bold]", "\x1b[31m", "\ud7ff", "axis", "to",
)  # fmt: skip
OPERATORS = (
    "Abs", "Add", "ArgMax", "Attention", "AveragePool", "BatchNormalization", "BitShift", "Cast", "CastLike", "Ceil",
    "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "CumSum", "DequantizeLinear", "DFT", "Div", "Dropout",
    "Einsum", "Elu", "Equal",
    "Erf", "Exp", "Expand", "EyeLike", "Flatten", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm",
    "GlobalAveragePool",
    "Hardmax", "Identity", "InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "LogSoftmax", "Log",
    "LpNormalization", "MatMul",
    "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression",
    "NonZero", "Not", "OneHot",
    "Pad", "Pow", "QuantizeLinear", "RandomNormal", "Range", "Reciprocal", "ReduceL2", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence",
    "ScatterElements",
    "ScatterND", "Shape", "Sigmoid", "Sign", "Size", "Slice", "Softmax", "SoftmaxCrossEntropyLoss", "Softplus",
    "SpaceToDepth", "Split",
    "SplitToSequence", "Sqrt", "Squeeze", "StringNormalizer", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze",
    "Upsample", "Where", "Xor",
)  # fmt: skip


# -- any field of any message ----------------------------------------------------------------------------------------


def messages(message: Message, below: int = 40) -> Iterator[Message]:
    yield message
    if below:
        for field, value in message.ListFields():
            if field.message_type is not None:
                for inner in [value] if isinstance(value, Message) else value:
                    yield from messages(inner, below - 1)


def _drawn(chooser: random.Random, field: Any) -> Any:
    """An odd value for a scalar field."""
    kinds = type(field)
    if field.cpp_type == kinds.CPPTYPE_ENUM:
        return chooser.choice(list(field.enum_type.values_by_number))
    if field.cpp_type == kinds.CPPTYPE_INT32:
        return chooser.choice([i for i in INTS if -(2**31) <= i < 2**31] + list(range(30)))
    if field.cpp_type == kinds.CPPTYPE_INT64:
        return chooser.choice(INTS)
    if field.cpp_type == kinds.CPPTYPE_UINT64:
        return chooser.choice([i for i in INTS if i >= 0])
    if field.cpp_type in (kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE):
        return chooser.choice(FLOATS)
    if field.cpp_type == kinds.CPPTYPE_STRING and field.type == kinds.TYPE_BYTES:
        return chooser.choice((b"", b"\xff\xfe", b"\0" * 7, b"../x", b"x" * 40_000))
    return chooser.choice(WORDS)


def _is_repeated(field: Any, value: object) -> bool:
    return not isinstance(value, (Message, str, bytes, int, float))


def any_field(chooser: random.Random, proto: Proto) -> None:
    """A field of some message gets an odd value, is removed, repeated, exchanged, or taken from another message."""
    for _ in range(chooser.choice((1, 1, 1, 2, 4, 16))):
        everything = list(messages(proto))
        target = chooser.choice(everything)
        fields = target.ListFields()
        if chooser.random() < 0.2 or not fields:
            _set_absent(chooser, target)
            continue
        field, value = chooser.choice(fields)
        if _is_repeated(field, value):
            _edit_repeated(chooser, field, value, everything)
        elif isinstance(value, Message):
            alike = [m for m in everything if type(m) is type(value)]
            if chooser.random() < 0.3:
                target.ClearField(field.name)
            else:
                _copy(value, chooser.choice(alike))
        elif chooser.random() < 0.2:
            target.ClearField(field.name)
        else:
            setattr(target, field.name, _drawn(chooser, field))


def _copy(target: Any, source: Any) -> None:
    copy = type(source)()
    copy.CopyFrom(source)
    target.CopyFrom(copy)


def _set_absent(chooser: random.Random, target: Any) -> None:
    field = chooser.choice(target.DESCRIPTOR.fields)
    if field.message_type is None and _is_repeated(field, getattr(target, field.name)):
        getattr(target, field.name).extend(_drawn(chooser, field) for _ in range(chooser.choice((1, 3, 70))))
    elif field.message_type is None:
        setattr(target, field.name, _drawn(chooser, field))
    elif _is_repeated(field, getattr(target, field.name)):
        getattr(target, field.name).add()
    else:
        getattr(target, field.name).SetInParent()


def _edit_repeated(chooser: random.Random, field: Any, values: Any, everything: list[Message]) -> None:
    scalar = field.message_type is None
    match chooser.randrange(6):
        case 0:
            del values[chooser.randrange(len(values))]
        case 1:
            del values[:]
        case 2 if scalar:
            values[chooser.randrange(len(values))] = _drawn(chooser, field)
        case 3 if scalar:
            values.extend([_drawn(chooser, field)] * chooser.choice((1, 2, 100)))
        case 4 if len(values) > 1:
            items = list(values)
            chooser.shuffle(items)
            copies = items if scalar else [_cloned(item) for item in items]
            del values[:]
            values.extend(copies)
        case _ if scalar:
            values.append(chooser.choice(list(values)))
        case _:
            alike = [m for m in everything if type(m) is type(values[0])]
            values.add().CopyFrom(_cloned(chooser.choice(alike)))


def _cloned(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


# -- graphs ----------------------------------------------------------------------------------------------------------


def _graphs(proto: Proto) -> list[Any]:
    """Everything that has nodes."""
    return [m for m in messages(proto) if isinstance(m, (onnx.GraphProto, onnx.FunctionProto)) and m.node]


def _names(graph: Any) -> list[str]:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*names, *(i if isinstance(i, str) else i.name for i in graph.input), *("nothing", "")]


def rewire(chooser: random.Random, proto: Proto) -> None:
    """Inputs and outputs of nodes renamed: cycles, values computed twice, values computed nowhere or later."""
    for _ in range(chooser.choice((1, 2, 5))):
        graph = chooser.choice(_graphs(proto))
        node = chooser.choice(graph.node)
        names = node.output if chooser.random() < 0.3 and node.output else node.input
        if names:
            names[chooser.randrange(len(names))] = chooser.choice(_names(graph))
        else:
            node.input.append(chooser.choice(_names(graph)))


def cycle(chooser: random.Random, proto: Proto) -> None:
    graph = chooser.choice(_graphs(proto))
    first, last = sorted(chooser.choices(range(len(graph.node)), k=2))
    if graph.node[first].input and graph.node[last].output:
        graph.node[first].input[0] = graph.node[last].output[0]


def reorder(chooser: random.Random, proto: Proto) -> None:
    graph = chooser.choice(_graphs(proto))
    nodes = [_cloned(n) for n in graph.node]
    chooser.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def operators(chooser: random.Random, proto: Proto) -> None:
    """Other operators, other domains, with the operands and attributes of the old."""
    for _ in range(chooser.choice((1, 1, 3, 10))):
        node = chooser.choice(chooser.choice(_graphs(proto)).node)
        node.op_type = chooser.choice(OPERATORS)
        if chooser.random() < 0.1:
            node.domain = chooser.choice(("ai.onnx", "ai.onnx.ml", "com.example", "com.microsoft", "local", "\0"))


def attributes(chooser: random.Random, proto: Proto) -> None:
    """Attributes of other types, values, and counts."""
    for _ in range(chooser.choice((1, 2, 5))):
        node = chooser.choice(chooser.choice(_graphs(proto)).node)
        name = chooser.choice([a.name for a in node.attribute] + ["axis", "axes", "keepdims", "to", "perm", "value"])
        value = chooser.choice((
            chooser.choice(INTS), chooser.choice(FLOATS), chooser.choice(WORDS),
            [chooser.choice(INTS) for _ in range(3)],
            list(range(70)), [-1], [0, 0], [0.5, float("nan")], ["a", "b"], b"\xff", np.zeros((0, 2), np.float32),
        ))  # fmt: skip
        for i in reversed([i for i, a in enumerate(node.attribute) if a.name == name]):
            del node.attribute[i]
        if isinstance(value, np.ndarray):
            node.attribute.append(helper.make_attribute(name, numpy_helper.from_array(value)))
        else:
            node.attribute.append(helper.make_attribute(name, value))
        if chooser.random() < 0.1:
            node.attribute[-1].type = chooser.randrange(15)
        if chooser.random() < 0.05:
            node.attribute[-1].ref_attr_name = chooser.choice(WORDS)


def dims(chooser: random.Random, proto: Proto) -> None:
    """Sizes and ranks, of tensors and in types."""
    for _ in range(chooser.choice((1, 1, 3))):
        shapes = [m for m in messages(proto) if isinstance(m, (TensorProto, onnx.TensorShapeProto))]
        if not shapes:
            return
        shape = chooser.choice(shapes)
        values = shape.dims if isinstance(shape, TensorProto) else shape.dim
        sizes = [chooser.choice(INTS) for _ in range(chooser.choice((0, 1, 2, 2, 5, 64, 65, 1000)))]
        if chooser.random() < 0.5 and len(values):
            sizes = [1] * len(values)
            sizes[chooser.randrange(len(sizes))] = chooser.choice(INTS)
        del values[:]
        for size in sizes:
            if isinstance(shape, TensorProto):
                shape.dims.append(size)
            elif chooser.random() < 0.2:
                shape.dim.add(dim_param=chooser.choice(WORDS))
            else:
                shape.dim.add(dim_value=size)


def types(chooser: random.Random, proto: Proto) -> None:
    for _ in range(chooser.choice((1, 1, 3))):
        typed = [m for m in messages(proto) if isinstance(m, (TensorProto, onnx.TypeProto.Tensor))]
        if not typed:
            return
        target = chooser.choice(typed)
        number = chooser.choice((*range(28), -1, 1000))
        if isinstance(target, TensorProto):
            target.data_type = number
        else:
            target.elem_type = number


def data(chooser: random.Random, proto: Proto) -> None:
    """Tensor data: shorter, longer, in the wrong field, in both, absent."""
    tensors = [m for m in messages(proto) if isinstance(m, TensorProto)]
    if not tensors:
        return
    tensor = chooser.choice(tensors)
    raw = tensor.raw_data
    match chooser.randrange(6):
        case 0:
            tensor.raw_data = raw[: len(raw) // 2] if raw else b"\x01\x02\x03"
        case 1:
            tensor.raw_data = raw + b"\0" * chooser.choice((1, 4, 1000))
        case 2:
            for name in ("float_data", "int32_data", "string_data", "int64_data", "double_data", "raw_data"):
                tensor.ClearField(name)
        case 3:
            tensor.float_data.extend(chooser.choices(FLOATS, k=chooser.choice((1, 4, 50))))
        case 4:
            tensor.int32_data.extend(chooser.choices([i for i in INTS if abs(i) < 2**31], k=chooser.choice((1, 6))))
        case _:
            tensor.string_data.append(b"\xff")


def external(chooser: random.Random, proto: Proto) -> None:
    """Data in other files: outside the folder, missing, beyond the end, huge."""
    tensors = [m for m in messages(proto) if isinstance(m, TensorProto)]
    if not tensors:
        return
    for tensor in chooser.sample(tensors, chooser.choice((1, 1, len(tensors)))):
        tensor.data_location = TensorProto.EXTERNAL
        if chooser.random() < 0.7:
            tensor.ClearField("raw_data")
        del tensor.external_data[:]
        places = (
            "weights.bin", "missing.bin", "../weights.bin", "/etc/passwd", "link.bin", "folder", "a/../weights.bin",
            "", ".",
            "weights.bin\0.txt", "C:\\x", "./weights.bin", "loop.bin", "x" * 300, "weights.bin/", "fifo.bin",
            "m.onnx", "/dev/zero",
        )  # fmt: skip
        tensor.external_data.add(key="location", value=chooser.choice(places))
        numbers = ("0", "8", "-1", "100000000000", "9" * 18, "9" * 30, "", "1e3", " 4", "0x10", "٣", "16")
        for key in ("offset", "length", "checksum", "basepath", "location"):
            if chooser.random() < 0.4:
                tensor.external_data.add(key=key, value=chooser.choice(numbers))


def opsets(chooser: random.Random, proto: Proto) -> None:
    match chooser.randrange(6):
        case 0:
            del proto.opset_import[:]
        case 1:
            proto.opset_import.add(domain=chooser.choice(WORDS), version=chooser.choice(INTS))
        case 2 if proto.opset_import:
            proto.opset_import[0].domain = chooser.choice(("ai.onnx", "com.example", "\0"))
        case 3:
            proto.ir_version = chooser.choice(INTS)
        case 4 if proto.functions:
            del proto.functions[0].opset_import[:]
        case _ if proto.opset_import:
            proto.opset_import[0].version = chooser.choice((*INTS, *range(30)))


# -- whole constructions ---------------------------------------------------------------------------------------------


def nest_graphs(chooser: random.Random, proto: Proto) -> bytes:
    """Branches within branches: a few, as many as protobuf reads, and thousands, which it does not."""
    depth = chooser.choice((5, 15, 20, 24, 25, 30, 50, 100, 5000))
    inner = b""
    for level in range(depth):
        # GraphProto{node {op_type If, output, attribute {name, g, type}}, name, output}, written from the inside
        graph = _field(2, b"g%d" % level) + inner + _field(12, _field(1, b"o%d" % level))
        attribute = _field(1, b"then_branch") + _field(6, graph) + b"\xa0\x01\x05"
        inner = _field(1, _field(1, b"c") + _field(2, b"o%d" % (level + 1)) + _field(4, b"If") + _field(5, attribute))
    return proto.SerializeToString() + _field(7, inner)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field on the wire."""
    size, length = len(content), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (128 if size else 0)])
        if not size:
            return bytes([number << 3 | 2]) + length + content


def nest_types(chooser: random.Random, proto: Proto) -> None:
    """A sequence of sequences of …"""
    value = chooser.choice([*proto.graph.input, *proto.graph.output, *proto.graph.value_info])
    kind = value.type
    for _ in range(chooser.choice((3, 20, 40, 90))):
        kind = kind.sequence_type.elem_type if chooser.random() < 0.5 else kind.optional_type.elem_type
    kind.tensor_type.elem_type = 1


def functions(chooser: random.Random, proto: Proto) -> None:
    """Functions that call themselves, each other in a ring, or twice the one before: 2^40 nodes when written out."""
    ring, calls = chooser.choice(((1, 1), (2, 1), (40, 2), (12, 2), (2000, 1), (300, 1)))
    closed = chooser.random() < 0.5
    for i in range(ring):
        callee = f"f{(i + 1) % ring}" if closed or i + 1 < ring else "Exp"
        domain = "deep" if callee != "Exp" else ""
        nodes = [
            helper.make_node(callee, ["x"] if c == 0 else [f"t{c - 1}"], [f"t{c}"], domain=domain) for c in range(calls)
        ]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("deep", 1)]
        function = helper.make_function("deep", f"f{i}", ["x"], [f"t{calls - 1}"], nodes, imports)
        if chooser.random() < 0.1:
            function.node[0].input[0] = f"t{calls - 1}"
        proto.functions.append(function)
    proto.opset_import.add(domain="deep", version=1)
    graph = proto.graph
    source = graph.node[0].output[0] if graph.node and graph.node[0].output else "x"
    graph.node.append(helper.make_node("f0", [source], ["deep_y"], domain="deep"))
    graph.output.append(helper.make_tensor_value_info("deep_y", 1, None))


_UNARY = (
    "Exp", "Log", "Sqrt", "Neg", "Sigmoid", "Tanh", "Softplus", "Reciprocal", "Relu", "Softmax", "LogSoftmax",
    "Identity", "Abs", "Erf",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "MatMul")


def grow(chooser: random.Random, proto: Proto) -> None:
    """Valid and odd: long chains, sums of a value with itself, towers of powers, nets of everything."""
    del proto.graph.node[:], proto.graph.output[:], proto.graph.value_info[:], proto.functions[:]
    proto.CopyFrom(
        text(
            "g (float[4, 4] x) => (float[4, 4] y) <float k = {3}, int64[1] ax = {1}> {\n v0 = Exp (x)\n y = Log (v0)\n}"
        )
    )
    nodes = proto.graph.node
    del nodes[:]
    names = ["x"]
    kind = chooser.randrange(7)
    length = chooser.choice((5, 30, 60, 200, 1000) if kind < 5 else (5, 10, 20, 40))
    fixed = (chooser.choice(_UNARY), chooser.choice(_BINARY), chooser.choice(_UNARY))
    for i in range(length):
        last, name = names[-1], f"v{i}"
        match kind:
            case 0:  # one unary operator, over and over
                node = helper.make_node(fixed[0], [last], [name])
            case 1:  # v ∘ v: a tree with 2^length leaves
                node = helper.make_node(fixed[1], [last, last], [name])
            case 2:
                node = helper.make_node(fixed[1], [last, chooser.choice(("k", "x", names[len(names) // 2]))], [name])
            case 3:  # two operators in turn
                node = helper.make_node(fixed[i % 2 * 2], [last], [name])
            case 4:  # 1/(1 + v), a continued fraction
                ops = (
                    ("Add", [last, "k"]),
                    ("Reciprocal", [last]),
                    ("Exp", [last]),
                    ("Mul", [last, names[max(0, i - 5)]]),
                )
                op, inputs = ops[i % chooser.choice((2, 2, 4))]
                node = helper.make_node(op, inputs, [name])
            case 5:  # softmax after softmax, naive
                base, e, s = names[-1], f"e{i}", f"s{i}"
                nodes.append(helper.make_node("Exp", [base], [e]))
                nodes.append(helper.make_node("ReduceSum", [e, "ax"], [s], keepdims=1))
                node = helper.make_node(chooser.choice(("Div", "Div", "Mul", "Sub")), [e, s], [name])
            case _:
                op = chooser.choice((*_UNARY, *_BINARY))
                inputs = [chooser.choice((*names[-4:], "k", "x")) for _ in range(1 if op in _UNARY else 2)]
                node = helper.make_node(op, inputs, [name])
        nodes.append(node)
        names.append(name)
    nodes.append(helper.make_node("Log" if chooser.random() < 0.5 else "Identity", [names[-1]], ["y"]))


def arithmetic_of_sizes(chooser: random.Random, proto: Proto) -> None:
    """Constants that are computed from constants: numbers, counts and shapes without end."""
    proto.CopyFrom(text("g (float[4, 4] x) => (float y) {\n y = Identity (x)\n}"))
    graph = proto.graph
    del graph.node[:]
    graph.output[0].type.ClearField("tensor_type")
    graph.output[0].type.tensor_type.elem_type = 1
    values = [chooser.choice(INTS) for _ in range(chooser.choice((1, 2, 4, 64)))]
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), "c0"))
    graph.initializer.append(numpy_helper.from_array(np.asarray(chooser.choice(INTS), np.int64), "k0"))
    graph.initializer.append(numpy_helper.from_array(np.asarray(chooser.choice(FLOATS), np.float32), "f0"))
    names = ["c0", "k0", "f0", "x"]
    ops = (
        "Add", "Mul", "Mul", "Sub", "Div", "Mod", "Pow", "Concat", "Concat", "Gather", "Reshape", "Unsqueeze",
        "Squeeze", "Shape", "Size",
        "Cast", "Slice", "ConstantOfShape", "Expand", "Tile", "Range", "Where", "ReduceProd", "Max", "OneHot", "Pad",
        "Resize", "NonZero",
        "CumSum", "EyeLike", "Trilu", "TopK", "Split", "ScatterElements", "GatherND", "BitShift", "Exp", "MatMul",
    )  # fmt: skip
    for i in range(chooser.choice((3, 10, 40, 200))):
        op = chooser.choice(ops)
        count = {
            "Shape": 1,
            "Size": 1,
            "Cast": 1,
            "ConstantOfShape": 1,
            "NonZero": 1,
            "Exp": 1,
            "Range": 3,
            "Where": 3,
            "Slice": 4,
        }.get(op, 2)
        extra = {
            "Concat": {"axis": 0},
            "Cast": {"to": chooser.choice((1, 6, 7, 9, 10, 11))},
            "Split": {"num_outputs": 2},
        }.get(op, {})
        graph.node.append(helper.make_node(op, chooser.choices(names[-6:], k=count), [f"r{i}"], **extra))
        names.append(f"r{i}")
    graph.node.append(helper.make_node("Cast", [names[-1]], ["last"], to=1))
    graph.node.append(helper.make_node("Add", ["last", "x"], ["y"]))


ProtoEdit = Callable[[random.Random, Proto], "bytes | None"]

STRUCTURED: Mapping[str, ProtoEdit] = {
    "any field": any_field,
    "values renamed": rewire,
    "cycle": cycle,
    "nodes reordered": reorder,
    "operators": operators,
    "attributes": attributes,
    "sizes and ranks": dims,
    "element types": types,
    "tensor data": data,
    "external data": external,
    "opsets": opsets,
    "nested graphs": nest_graphs,
    "nested types": nest_types,
    "functions": functions,
    "odd valid graphs": grow,
    "computed sizes": arithmetic_of_sizes,
}

#: How often, where not once.
WEIGHTS = {
    "any field": 5, "values renamed": 2, "operators": 4, "attributes": 3, "sizes and ranks": 3,
    "odd valid graphs": 3, "computed sizes": 3,
    "nested types": 0.3, "opsets": 0.7, "functions": 0.7, "nested graphs": 0.5,
}  # fmt: skip


def mutate(chooser: random.Random, seed: Model) -> tuple[str, Model]:
    """(name of the mutation, mutant)."""
    names = [*STRUCTURED, *EDITS]
    name = chooser.choices(names, [WEIGHTS.get(n, 1) for n in names])[0]
    beside = dict(seed.beside)
    links: dict[str, str] = {}
    if name in STRUCTURED:
        proto = onnx.ModelProto.FromString(seed.data)
        result = STRUCTURED[name](chooser, proto) or proto.SerializeToString()
        if name == "external data":
            links = {"link.bin": "/etc/passwd", "loop.bin": "loop.bin"}
            beside.setdefault("weights.bin", b"\0" * 64)
            beside["folder/inside.bin"] = b"1234"
    elif beside and chooser.random() < 0.5:
        file = chooser.choice(list(beside))
        result, beside[file] = seed.data, EDITS[name](chooser, beside[file])
    else:
        result = EDITS[name](chooser, seed.data)
    return name, Model("onnx", result, beside, links)
