"""Reading what torch writes, without torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch_archive import DATA, GOOD, archive, state, tensor

from framewake.errors import CheckpointError
from framewake.weights.reading.torch_file import TorchFile

torch = pytest.importorskip("torch")

TYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
]


def some(dtype):
    bits = torch.randint(0, 256, (4, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return bits % 2 == 1 if dtype == torch.bool else bits.view(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_comes_back_exactly(tmp_path, dtype):
    values = some(getattr(torch, dtype))
    torch.save({"a.weight": values, "b": torch.zeros(3)}, tmp_path / "x.pt")
    file = TorchFile(tmp_path / "x.pt")
    assert file.names() == ("a.weight", "b")
    assert file.shape("a.weight") == tuple(values.shape)
    wide = values.float() if dtype.startswith(("bfloat", "float8")) else values
    assert np.array_equal(file.read("a.weight"), wide.numpy(), equal_nan=dtype != "bool")
    assert file.raw("a.weight").tobytes() == values.contiguous().view(torch.uint8).numpy().tobytes()


def test_views_offsets_and_shared_storages(tmp_path):
    whole = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    views = {"all": whole, "turned": whole.T, "part": whole[1:4, 2::3], "row": whole[4], "one": whole[3, 5]}
    views |= {"none": whole[:0], "parameter": torch.nn.Parameter(whole)}
    torch.save(views, tmp_path / "x.pt")
    file = TorchFile(tmp_path / "x.pt")
    for name, values in views.items():
        assert file.shape(name) == tuple(values.shape)
        assert np.array_equal(file.read(name), values.detach().numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_module_and_every_protocol(tmp_path, protocol):
    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(layer.state_dict(), tmp_path / "x.pt", pickle_protocol=protocol)
    file = TorchFile(tmp_path / "x.pt")
    assert {name: file.read(name).tolist() for name in file.names()} == {
        name: values.tolist() for name, values in layer.state_dict().items()
    }


def test_the_dict_inside_is_found(tmp_path):
    one, two = {"w": torch.ones(2)}, {"w": torch.zeros(2)}
    torch.save({"module": one, "ema": two, "step": 7, "names": {"a", "b"}, "pi": 3.5}, tmp_path / "both.pt")
    assert TorchFile(tmp_path / "both.pt").read("w").tolist() == [1, 1]
    assert TorchFile(tmp_path / "both.pt", "ema").read("w").tolist() == [0, 0]
    torch.save({"ema": two}, tmp_path / "ema.pt")
    assert TorchFile(tmp_path / "ema.pt").read("w").tolist() == [0, 0]
    with pytest.raises(CheckpointError, match="no dict 'other'; it has module, ema"):
        TorchFile(tmp_path / "both.pt", "other")


@pytest.mark.parametrize("name", ["model", "model_state_dict", "generator", "params_ema", "net"])
def test_the_only_dict_of_tensors_is_taken_whatever_its_name(tmp_path, name):
    model, optimiser = {"w": torch.ones(2)}, {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({name: model, "optimizer": optimiser, "epoch": 3, "args": {"lr": 1e-4}}, tmp_path / "x.pt")
    assert TorchFile(tmp_path / "x.pt").read("w").tolist() == [1, 1]
    torch.save({name: model, "critic": model}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=rf"holds 2 dicts of tensors: '{name}', 'critic'"):
        TorchFile(tmp_path / "x.pt")


def test_values_that_are_no_tensors_are_named(tmp_path):
    beside = {"epoch": 3, "note": "done", "best": None, "is_ema": True}
    torch.save({"w": torch.ones(2), **beside}, tmp_path / "x.pt")
    assert TorchFile(tmp_path / "x.pt").names() == ("w",)
    torch.save({"w": torch.ones(2), "optimizer": {"lr": 1.0}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"'optimizer' is no tensor but a dict.*save the model's state_dict"):
        TorchFile(tmp_path / "x.pt")
    torch.save([torch.ones(2)], tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        TorchFile(tmp_path / "y.pt")


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    """A terabyte that takes no room on disk opens at once."""
    size = 2**40
    path = archive(tmp_path / "x.pt", state(a=tensor((size,), (1,), count=size, kind="ByteStorage")), {"0": b""})
    grow(path, size)
    assert TorchFile(path).shape("a") == (size,)
    assert TorchFile(path).raw("a")[-1] == 0


def grow(path, size):
    """Give the storage a size by hand: a hole in the file, and zip64 numbers in its directory."""
    import struct

    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, _, first = struct.unpack("<HII", data[end + 10 : end + 20])
    directory = data[first:end]
    at = directory.rindex(b"PK\x01\x02")
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    entry = bytearray(directory[at:])
    entry[20:28] = b"\xff" * 8
    entry[30:32] = len(extra).to_bytes(2, "little")
    directory = directory[:at] + bytes(entry) + extra
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), first + size)
    place = struct.pack("<4sIQI", b"PK\x06\x07", 0, first + size + len(directory), 1)
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    with open(path, "wb") as file:
        file.write(data[:first])
        file.seek(first + size)
        file.write(directory + end64 + place + last)


def test_hand_made_files_are_what_the_tests_think(tmp_path):
    """The ground under the tests of bad files: the good one is read, by torch too."""
    path = archive(tmp_path / "x.pt", members={"0": DATA})
    assert TorchFile(path).read("a").tolist() == torch.load(path, weights_only=True)["a"].tolist()
    assert TorchFile(path).read("a").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert b"_rebuild_tensor_v2" in GOOD


def test_check_sums(tmp_path):
    torch.save({"w": torch.arange(100.0)}, tmp_path / "x.pt")
    TorchFile(tmp_path / "x.pt").check_sums()
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[data.index(np.float32(50).tobytes())] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"check sum of .*data/0"):
        TorchFile(tmp_path / "x.pt").check_sums()


def test_the_message_is_one_that_a_terminal_can_show(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        TorchFile(archive(tmp_path / "x.pt", b"\x80\x02c" + b"a" * 90 + b"\nb\n."))
    assert json.dumps(str(caught.value)).isascii() and len(str(caught.value)) < 400
