"""Files that want to run something, or to make the reader fall over: only ``CheckpointError`` comes out."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_archive import DATA, GOOD, archive, name, number, row, state, tensor, text

from framewake.errors import CheckpointError
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.pickle_values import MOST_INSTRUCTIONS, load
from framewake.weights.reading.torch_file import TorchFile
from framewake.weights.writing.files import write_tensors

MARKER = "framewake_was_here"


class Calls:
    """What pickles as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts


class Thing:
    """What pickles as an object of a class."""

    def __setstate__(self, values):
        raise AssertionError("a pickle ran __setstate__")


def calls(function, *arguments, protocol=2):
    return pickle.dumps({"a": Calls(function, *arguments)}, protocol)


SHELL = f"touch {MARKER}"
RUNS = {
    "os.system": (calls(os.system, SHELL), r"posix\.system|nt\.system"),
    "os.system in version 4": (calls(os.system, SHELL, protocol=4), r"posix\.system|nt\.system"),
    "eval": (calls(eval, "1+1"), r"__builtin__\.eval"),
    "exec": (calls(exec, "x=1", protocol=4), r"builtins\.exec"),
    "open": (calls(open, MARKER, "w"), r"\.open"),
    "getattr": (calls(getattr, "a", "upper"), r"\.getattr"),
    "import": (calls(__import__, "os"), r"__import__"),
    "a call in a call": (calls(dict, Calls(os.system, SHELL)), r"\.dict"),
    "a call in an argument": (
        b"\x80\x02" + name("collections", "OrderedDict") + name("os", "system") + text(SHELL) + b"\x85R\x85R.",
        r"os\.system",
    ),
    "Counter": (pickle.dumps({"a": collections.Counter("aab")}, 2), r"collections\.Counter"),
    "a class": (pickle.dumps({"a": Thing()}, 2), r"Thing|copy_reg|NEWOBJ"),
    "a numpy array": (pickle.dumps({"a": np.zeros(2)}, 2), "numpy"),
    "torch.load": (b"\x80\x02" + name("torch", "load") + text("x") + b"\x85R.", r"torch\.load"),
    "dotted name": (b"\x80\x04" + b"\x8c\x08builtins\x8c\x0dset.__class__\x93.", r"set\.__class__"),
    "a name over two lines": (b"\x80\x02ctorch\nFloatStorage.__reduce__\n.", r"__reduce__"),
    "INST": (b"(" + b"S'x'\n" + b"ios\nsystem\n.", "STRING"),
    "INST alone": (b"(ios\nsystem\n.", "INST"),
    "OBJ": (b"(" + name("collections", "OrderedDict") + b"o.", "OBJ"),
    "NEWOBJ": (name("collections", "OrderedDict") + b")\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (name("collections", "OrderedDict") + b")}\x92.", "NEWOBJ_EX"),
    "EXT1": (b"\x82\x01.", "EXT1"),
    "EXT2": (b"\x83\x01\x00.", "EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00.", "EXT4"),
    "a text identity": (b"P1\n.", "PERSID"),
    "a buffer": (b"\x97.", "NEXT_BUFFER"),
    "state of a dict": (b"}}b.", "no OrderedDict"),
    "state that is no dict": (name("collections", "OrderedDict") + b")RK\x01b.", "state"),
    "a label called as a function of another kind": (name("torch", "float8_e5m2") + b")R.", "from other values"),
    "a storage called": (name("torch", "FloatStorage") + b"K\x08\x85R.", "from other values"),
    "an argument to OrderedDict": (name("collections", "OrderedDict") + b"]\x85R.", "from other values"),
}


@pytest.mark.parametrize(("code", "message"), RUNS.values(), ids=RUNS)
def test_nothing_is_run(tmp_path, monkeypatch, code, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        TorchFile(archive(tmp_path / "x.pt", code))
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


DEEP = 100_000
LAUGHS = b"]" + b"".join(b"q%c0]" % 1 + b"h\x01a" * 10 for _ in range(60))
STORAGE = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu")
BAD = {
    "nothing": b"",
    "only a version": b"\x80\x02",
    "version 6": b"\x80\x06}.",
    "no end": b"\x80\x02}",
    "two values": b"}}.",
    "an open mark": b"(}.",
    "a mark that was never set": b"t.",
    "POP beyond the bottom": b"0.",
    "BINGET of nothing": b"h\x07.",
    "a text longer than the file": b"X\xff\xff\xff\x7fab.",
    "a text of 2**63 bytes": b"\x8d" + b"\xff" * 8 + b"ab.",
    "a text that is not UTF-8": b"X\x02\x00\x00\x00\xff\xfe.",
    "half a surrogate pair": b"X\x03\x00\x00\x00\xed\xa0\x80.",
    "a name without an end": b"cos" + b"x" * 300,
    "a huge number": b"\x8a\xff" + b"\x01" * 255 + b".",
    "an endless number": b"\x8b\xff\xff\xff\x7f.",
    "an odd number of items": b"}(" + text("a") + b"u.",
    "a tuple as a key": b"}(K\x01t" + b"N" + b"s.",
    "a float as a key": b"}G" + b"\x00" * 8 + b"Ns.",
    "a list as a key": b"}]Ns.",
    "the same key twice": b"}(" + (text("a") + b"N") * 2 + b"u.",
    "a list inside itself": b"]q\x01h\x01a.",
    "a dict inside itself": b"}q\x01" + text("a") + b"h\x01s.",
    "deep lists": b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "deep marks": b"(" * DEEP + b"t" * DEEP + b".",
    "deep tuples": b")" + b"\x85" * DEEP + b".",
    "a deep key": b"})" + b"\x85" * DEEP + b"Ns.",
    "a long chain of memory": b"]" + b"".join(b"r" + i.to_bytes(4, "little") for i in range(DEEP)) + b".",
    "memory at a huge place": b"]r\xff\xff\xff\xff0j\xff\xff\xff\xff.",
    "a billion laughs": LAUGHS + b".",
    "a billion laughs as keys": b"}" + b")" + b"q\x010(h\x01h\x01t" * 60 + b"Ns.",
    "too many instructions": b"N0" * MOST_INSTRUCTIONS,
    "a storage of a text": b"N" + b"Q.",
    "a storage of four": STORAGE + b"tQ.",
    "a storage with a list for a count": STORAGE + b"]tQ.",
    "a negative storage": STORAGE + number(-6) + b"tQ.",
    "a type for a storage": b"(" + text("storage") + name("torch", "bool") + text("0") * 2 + number(6) + b"tQ.",
    "a tensor of too little": name("torch._utils", "_rebuild_tensor_v2") + b")R.",
    "a number called": b"K\x01)R.",
    "a tensor alone": b"\x80\x02" + tensor((2, 3), (3, 1)) + b".",
}


@pytest.mark.parametrize("code", BAD.values(), ids=BAD)
def test_bad_pickles(tmp_path, code):
    path = archive(tmp_path / "x.pt", code)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        TorchFile(path)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Compared with what a value costs in Python, not with the file alone: an empty list is one byte there.
    assert peak < 100 * path.stat().st_size + 2**20, f"{peak} bytes for {path.stat().st_size}"
    assert seconds < 10


TENSORS = {
    "a storage that is not there": tensor((2, 3), (3, 1), key="1"),
    "a storage outside the archive": tensor((2, 3), (3, 1), key="../data.pkl"),
    "a larger storage": tensor((2, 3), (3, 1), count=7),
    "a smaller storage": tensor((2, 2), (2, 1), count=5),
    "a storage of another type": tensor((2, 3), (3, 1), kind="DoubleStorage"),
    "an offset": tensor((2, 3), (3, 1), offset=1),
    "an offset far away": tensor((1,), (1,), offset=2**62),
    "a negative offset": tensor((1,), (1,), offset=-1),
    "a negative size": tensor((-2, -3), (3, 1)),
    "a negative stride": tensor((2, 3), (-3, 1), offset=3),
    "a large stride": tensor((2, 3), (4, 1)),
    "a huge stride": tensor((2, 3), (2**62, 1)),
    "one number a million times": tensor((10**6,), (0,)),
    "one number 2**62 times": tensor((2**62,), (0,)),
    "overlapping rows": tensor((5, 2), (1, 1)),
    "a huge size beside nothing": tensor((0, 2**62), (1, 1)),
    "more sizes than strides": tensor((2, 3), (1,)),
    "many dimensions": tensor((1,) * 40, (1,) * 40),
    "sizes whose product wraps around": tensor((2**32, 2**32), (1, 1)),
    "a size that is a text": name("torch._utils", "_rebuild_tensor_v2") + STORAGE + number(6) + b"tQ"
    + number(0) + b"(" + text("6") + b"t" + row((1,)) + b"\x89}t" + b"R",
}  # fmt: skip


@pytest.mark.parametrize("made", TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_not_in_the_file(tmp_path, made):
    path = archive(tmp_path / "x.pt", state(a=made))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        TorchFile(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_compressed_members_are_refused(tmp_path):
    bomb = {"0": bytes(50 * 2**20)}
    path = archive(tmp_path / "x.pt", members=bomb, packed=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        TorchFile(path)


@pytest.mark.parametrize("order", [b"big", b"", b"littler", bytes(2**20)])
def test_byte_order(tmp_path, order):
    with pytest.raises(CheckpointError, match="byte order"):
        TorchFile(archive(tmp_path / "x.pt", order=order))
    assert TorchFile(archive(tmp_path / "y.pt", order=None)).names() == ("a",)


def test_two_pickles_and_none(tmp_path):
    with zipfile.ZipFile(archive(tmp_path / "x.pt"), "a") as file:
        file.writestr("y/data.pkl", GOOD)
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as file:
        file.writestr("x/data/0", DATA)
    for made in ("x.pt", "y.pt"):
        with pytest.raises(CheckpointError, match=r"pickles named data\.pkl"):
            TorchFile(tmp_path / made)


def test_a_member_twice(tmp_path):
    with pytest.warns(UserWarning), zipfile.ZipFile(archive(tmp_path / "x.pt"), "a") as file:
        file.writestr("x/data/0", DATA)
    with pytest.raises(CheckpointError, match="twice"):
        TorchFile(tmp_path / "x.pt")


def patched(path, old, new, *, last=True):
    """Change bytes of a file; ``old`` is looked for from the end, where the directory is."""
    data = path.read_bytes()
    at = data.rindex(old) if last else data.index(old)
    path.write_bytes(data[:at] + new + data[at + len(new) :])


def test_members_that_share_bytes(tmp_path):
    """Two names for one place would count the same bytes twice."""
    path = archive(tmp_path / "x.pt", state(a=tensor((2, 3), (3, 1))), {"0": DATA, "1": DATA})
    data = path.read_bytes()
    second = data.rindex(b"PK\x01\x02")
    first = data.rindex(b"PK\x01\x02", 0, second)
    path.write_bytes(data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :])
    with pytest.raises(CheckpointError, match=r"another name|overlaps"):
        TorchFile(path)


ENDS = {
    "more members than there are": (8, b"\xfe\xff\xfe\xff"),
    "a directory beyond the file": (12, b"\xf0\xff\xff\x7f"),
    "a directory at another place": (16, b"\x01\x00\x00\x00"),
    "a comment that is not there": (20, b"\x09\x00"),
    "another disk": (4, b"\x01\x00"),
    "zip64 without its record": (16, b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize(("at", "new"), ENDS.values(), ids=ENDS)
def test_bad_ends(tmp_path, at, new):
    path = archive(tmp_path / "x.pt")
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + at : end + at + len(new)] = new
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        TorchFile(path)


def test_every_truncation(tmp_path):
    whole = archive(tmp_path / "good.pt").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            TorchFile(tmp_path / "x.pt")


def read_all(reader, path):
    """Open and read everything; nothing may come out but arrays or CheckpointError."""
    try:
        file = reader(path)
        for name in file.names():
            assert file.read(name).nbytes <= 8 * path.stat().st_size
    except CheckpointError:
        pass


def flips(size):
    return st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), min_size=1, max_size=6)


QUICK = settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("saved") / "good.pt"
    layer = torch.nn.Linear(3, 2).to(torch.bfloat16)
    torch.save({"module": layer.state_dict(), "v": torch.arange(4)[::2], "step": 3}, path)
    return path.read_bytes()


@QUICK
@given(data=st.data())
def test_flipped_bytes_of_a_torch_file(saved, tmp_path, data):
    damaged = bytearray(saved)
    for at, value in data.draw(flips(len(saved))):
        damaged[at] = value
    (tmp_path / "x.pt").write_bytes(damaged)
    read_all(TorchFile, tmp_path / "x.pt")


@QUICK
@given(changes=flips(len(GOOD)))
def test_flipped_bytes_of_a_pickle(tmp_path, changes):
    damaged = bytearray(GOOD)
    for at, value in changes:
        damaged[at] = value
    read_all(TorchFile, archive(tmp_path / "x.pt", bytes(damaged)))


@QUICK
@given(code=st.binary(max_size=200))
def test_any_bytes_as_a_pickle(code):
    with contextlib.suppress(CheckpointError):
        load(code)


@QUICK
@given(data=st.data())
def test_flipped_bytes_of_a_safetensors_file(tmp_path, data):
    arrays = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16), "c": np.zeros((0, 2), np.int64)}
    write_tensors(tmp_path / "good", arrays)
    damaged = bytearray((tmp_path / "good").read_bytes())
    for at, value in data.draw(flips(len(damaged))):
        damaged[at] = value
    (tmp_path / "x").write_bytes(damaged)
    read_all(TensorFile, tmp_path / "x")
