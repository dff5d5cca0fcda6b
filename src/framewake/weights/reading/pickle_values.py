"""A pickle machine that can only make tensors' descriptions and plain containers.

A pickle is a program. This machine runs the part of its language that weight files use, and nothing it
can reach imports, calls or looks up anything: the few names it accepts are labels in a table. Whatever
else a pickle asks for is refused by name. Every instruction costs time and memory in proportion to its own
bytes, so a hostile file cannot make more of either than its size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from framewake.errors import CheckpointError

# A pickle of a thousand tensors has 0.1 MB and 40 000 instructions; each may leave a value of 100 bytes.
MOST_BYTES = 16 * 2**20
MOST_INSTRUCTIONS = 500_000
_MARK = object()

# Names in torch -> our storage types.
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}


class Label(NamedTuple):
    """A name that a pickle may mention: ``kind`` decides what it can be used for."""

    kind: str
    value: str


class PickledStorage(NamedTuple):
    """A run of numbers; ``dtype`` is "" for plain bytes. Units: ``numbers`` counts bytes where there is no type."""

    dtype: str
    key: str
    numbers: int


class TensorPlace(NamedTuple):
    """A tensor's place in a storage. Units: ``offset`` and ``strides`` in numbers."""

    storage: PickledStorage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Ordered(dict[Any, Any]):
    """A dict that a pickle made as an OrderedDict, the only thing whose state may be set."""


LABELS = {
    ("collections", "OrderedDict"): Label("dict", ""),
    ("torch", "Size"): Label("size", ""),
    ("builtins", "set"): Label("set", ""),
    ("__builtin__", "set"): Label("set", ""),
    ("torch._utils", "_rebuild_tensor_v2"): Label("tensor", ""),
    ("torch._utils", "_rebuild_tensor_v3"): Label("tensor of a type", ""),
    ("torch._utils", "_rebuild_parameter"): Label("parameter", ""),
    ("torch.storage", "UntypedStorage"): Label("storage", ""),
    ("torch", "UntypedStorage"): Label("storage", ""),
    **{("torch", name): Label("storage", dtype) for name, dtype in _STORAGES.items()},
    **{("torch", name): Label("type", dtype) for name, dtype in DTYPES.items()},
}


class PickleRefused(CheckpointError):
    """A pickle asks for what no weight file needs."""


def load(data: bytes) -> Any:
    """The value of a pickle: containers, strings, numbers, and ``TensorPlace`` for tensors.

    Raises: CheckpointError for everything else.
    """
    if len(data) > MOST_BYTES:
        raise PickleRefused(f"its pickle has {len(data)} bytes; at most {MOST_BYTES} are read")
    return _Machine(data).run()


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below a mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_INSTRUCTIONS):
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                if self.outer or len(self.stack) != 1:
                    raise PickleRefused(f"its pickle ends at {self.at} with {len(self.stack)} values instead of one")
                return self.stack[0]
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise PickleRefused(f"its pickle has the instruction {_NAMES.get(code, hex(code))} at {self.at - 1}")
            operation(self)
        raise PickleRefused(f"its pickle has more than {MOST_INSTRUCTIONS} instructions")

    # --- bytes and stack

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise PickleRefused("its pickle is cut off")
        self.at += count
        return piece

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 200)
        if end < 0:
            raise PickleRefused(f"its pickle has a name without an end at {self.at}")
        return self.text(self.take(end - self.at + 1)[:-1])

    def text(self, piece: bytes) -> str:
        try:
            return piece.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PickleRefused(f"its pickle has a text that is not UTF-8 at {self.at}") from error

    def pop(self) -> Any:
        if not self.stack:
            raise PickleRefused(f"its pickle takes a value from an empty stack at {self.at}")
        return self.stack.pop()

    def top(self, kind: type, what: str) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise PickleRefused(f"its pickle adds to something that is no {what} at {self.at}")
        return self.stack[-1]

    def to_mark(self) -> list[Any]:
        if not self.outer:
            raise PickleRefused(f"its pickle closes what it never opened at {self.at}")
        values, self.stack = self.stack, self.outer.pop()
        return values

    # --- instructions

    def protocol(self) -> None:
        version = self.take(1)[0]
        if version > 5:
            raise PickleRefused(f"its pickle has version {version}; 2 to 5 are known")

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def discard(self) -> None:
        # CPython lets POP remove a mark as well.
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def whole_number(self, size: int) -> None:
        if size > 8:
            raise PickleRefused(f"its pickle has a number of {size} bytes at {self.at}")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def string(self, size: int) -> None:
        self.stack.append(self.text(self.take(size)))

    def short_tuple(self, size: int) -> None:
        self.stack.append(tuple(reversed([self.pop() for _ in range(size)])))

    def long_tuple(self) -> None:
        values = tuple(self.to_mark())
        self.stack.append(values)

    def append(self) -> None:
        value = self.pop()
        self.top(list, "list").append(value)

    def extend(self) -> None:
        values = self.to_mark()
        self.top(list, "list").extend(values)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.put_items([key, value])

    def set_items(self) -> None:
        self.put_items(self.to_mark())

    def put_items(self, values: list[Any]) -> None:
        target = self.top(dict, "dict")
        if len(values) % 2:
            raise PickleRefused(f"its pickle has a key without a value at {self.at}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Others would be hashed as a whole, which nested tuples make endless.
            if not isinstance(key, str | int):
                raise PickleRefused(f"its pickle has a {type(key).__name__} for a key at {self.at}")
            if key in target:
                raise PickleRefused(f"its pickle gives the key {str(key)[:80]!r} twice")
            target[key] = value

    def remember(self, index: int) -> None:
        if not self.stack:
            raise PickleRefused(f"its pickle remembers nothing at {self.at}")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise PickleRefused(f"its pickle recalls {index}, which it never remembered")
        self.stack.append(self.memo[index])

    def name(self) -> None:
        self.label(self.line(), self.line())

    def name_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleRefused(f"its pickle has a name that is no text at {self.at}")
        self.label(module, name)

    def label(self, module: str, name: str) -> None:
        found = LABELS.get((module, name))
        if found is None:
            raise PickleRefused(f"its pickle asks for {(module + '.' + name)[:120]!r}, which no weight file needs")
        self.stack.append(found)

    def storage(self) -> None:
        given = self.pop()
        fits = isinstance(given, tuple) and len(given) == 5 and given[0] == "storage" and isinstance(given[1], Label)
        if not fits or given[1].kind != "storage" or not isinstance(given[2], str) or not _is_size(given[4]):
            raise PickleRefused(f"its pickle has a storage that is described in another way at {self.at}")
        self.stack.append(PickledStorage(given[1].value, given[2], given[4]))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Label) or not isinstance(arguments, tuple):
            raise PickleRefused(f"its pickle calls something that is no function at {self.at}")
        maker = _MAKERS.get(function.kind)
        made = None if maker is None else maker(arguments)
        if made is None:
            raise PickleRefused(f"its pickle makes a {function.kind} from other values than expected at {self.at}")
        self.stack.append(made)

    def state(self) -> None:
        # A state dict carries version numbers of its modules this way; nothing here needs them.
        if not isinstance(self.pop(), dict):
            raise PickleRefused(f"its pickle sets a state that is no dict at {self.at}")
        self.top(Ordered, "OrderedDict")


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= 64 and all(_is_size(value) for value in values)


def _tensor(arguments: tuple[Any, ...], *, is_typed: bool = False) -> TensorPlace | None:
    if len(arguments) < (7 if is_typed else 6):
        return None
    storage, offset, shape, strides = arguments[:4]
    if (
        not isinstance(storage, PickledStorage)
        or not _is_size(offset)
        or not _are_sizes(shape)
        or not _are_sizes(strides)
    ):
        return None
    if len(shape) != len(strides):
        return None
    if not is_typed:
        return TensorPlace(storage, storage.dtype, offset, shape, strides) if storage.dtype else None
    label = arguments[6]
    if not isinstance(label, Label) or label.kind != "type" or storage.dtype not in ("", label.value):
        return None
    return TensorPlace(storage, label.value, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> TensorPlace | None:
    return arguments[0] if len(arguments) == 3 and isinstance(arguments[0], TensorPlace) else None


# Each gives None for arguments that it does not take. A set stays the list it is made from.
_MAKERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "dict": lambda a: None if a else Ordered(),
    "size": lambda a: a[0] if len(a) == 1 and _are_sizes(a[0]) else None,
    "set": lambda a: a[0] if len(a) == 1 and isinstance(a[0], list) else None,
    "tensor": _tensor,
    "tensor of a type": lambda a: _tensor(a, is_typed=True),
    "parameter": _parameter,
}

_OPERATIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _Machine.protocol,
    0x95: lambda m: m.take(8),  # FRAME
    ord("("): _Machine.mark,
    ord("0"): _Machine.discard,
    ord("1"): _Machine.to_mark,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("J"): lambda m: m.stack.append(m.number("<i")),
    ord("K"): lambda m: m.stack.append(m.number("<B")),
    ord("M"): lambda m: m.stack.append(m.number("<H")),
    0x8A: lambda m: m.whole_number(m.number("<B")),
    ord("G"): lambda m: m.stack.append(m.number(">d")),
    ord("X"): lambda m: m.string(m.number("<I")),
    0x8C: lambda m: m.string(m.number("<B")),
    0x8D: lambda m: m.string(m.number("<Q")),
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): _Machine.append,
    ord("e"): _Machine.extend,
    ord(")"): lambda m: m.stack.append(()),
    ord("t"): _Machine.long_tuple,
    0x85: lambda m: m.short_tuple(1),
    0x86: lambda m: m.short_tuple(2),
    0x87: lambda m: m.short_tuple(3),
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
    ord("c"): _Machine.name,
    0x93: _Machine.name_from_stack,
    ord("Q"): _Machine.storage,
    ord("R"): _Machine.call,
    ord("b"): _Machine.state,
}

# What could run code or has no place in a weight file, by the names that pickle gives them.
_NAMES = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    ord("P"): "PERSID",
    ord("2"): "DUP",
    ord("I"): "INT",
    ord("L"): "LONG",
    0x8B: "LONG4",
    ord("F"): "FLOAT",
    ord("S"): "STRING",
    ord("T"): "BINSTRING",
    ord("U"): "SHORT_BINSTRING",
    ord("V"): "UNICODE",
    ord("B"): "BINBYTES",
    ord("C"): "SHORT_BINBYTES",
    0x8E: "BINBYTES8",
    0x96: "BYTEARRAY8",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    0x8F: "EMPTY_SET",
    0x90: "ADDITEMS",
    0x91: "FROZENSET",
    ord("d"): "DICT",
    ord("l"): "LIST",
    ord("g"): "GET",
    ord("p"): "PUT",
}
