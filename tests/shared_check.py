"""One of several processes that share weights: all blocks are those of whole weights, bit by bit.

Run as ``shared_check.py ENGINE FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from framewake import engine as engines
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.shared import Shared

STREAMS = ("double", "single")
SHAPES = {"head.weight": (3, 4)}
SHAPES |= {
    f"{name}.{number}.{what}": shape
    for name, count, rows, columns in (("double", 6, 400, 300), ("single", 8, 300, 400))
    for number in range(count)
    for what, shape in (("weight", (rows, columns)), ("bias", (400,)))
}


def main(name: str, file: str) -> None:
    engine = engines.join(name)
    mapped = MappedTensors(TensorFile(Path(file)), same(SHAPES))
    for is_streamed in (False, True):
        for dtype in ("float32", "bfloat16") if engine.kind == "torch" else ("float32",):
            store = Shared(engine, mapped, dtype, shapes=SHAPES, streams=STREAMS, is_streamed=is_streamed)
            for stream in STREAMS * 2:
                for number, block in enumerate(store.blocks(stream)):
                    for what, tensor in block.items():
                        expected = engine.asarray(mapped.values(f"{stream}.{number}.{what}", dtype), dtype)
                        assert np.array_equal(engine.numpy(tensor), engine.numpy(expected))
            store.close()
    engines.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
