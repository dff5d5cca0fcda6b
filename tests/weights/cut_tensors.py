"""Parts of a tensor as a store of shared weights reads them, against the whole of it."""

from __future__ import annotations

from framewake.weights.reading.mapped import MappedTensors, Stretch
from framewake.weights.reading.names import same


def check_cuts(tensors: MappedTensors, name: str, dtype: str) -> None:
    """Runs at the ends and in the middle of a tensor, alone and joined, are the bits of the whole one."""
    whole = tensors.values(name, dtype).reshape(-1)
    third = whole.size // 3
    cuts = [(0, whole.size), (0, 1), (whole.size - 1, whole.size), (1, third + 1), (third, whole.size - 2)]
    runs = [Stretch(name, first, last - first) for first, last in cuts if first < last]
    pieces = [whole[run.first : run.first + run.numbers] for run in runs]
    for run, expected in zip(runs, pieces, strict=True):
        found = tensors.joined([run], dtype)
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes(), run
    assert tensors.joined(runs, dtype).tobytes() == b"".join(piece.tobytes() for piece in pieces)


def check_file(file, dtype: str) -> None:
    """The same for every tensor of a file, under its own names."""
    tensors = MappedTensors(file, same(file.names()))
    for name in file.names():
        check_cuts(tensors, name, dtype)
