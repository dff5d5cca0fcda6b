"""One of several processes: exchanges of many kinds, what arrived as an .npz. Run as ``exchange_check.py ENGINE``."""

from __future__ import annotations

import sys

import numpy as np
from exchange_pieces import KINDS, LAYOUTS, piece, shapes

from framewake import engine as engines


def main(name: str) -> None:
    engine = engines.join(name)
    rank, size = engine.rank(), engine.size()
    found = {}
    for layout in LAYOUTS:
        coming = [shapes(layout, source, rank) for source in range(size)]
        for kind in KINDS:
            sent = [engine.asarray(piece(layout, rank, target, kind), kind) for target in range(size)]
            arrived = engine.exchange(sent, coming)()
            assert arrived[rank] is sent[rank], "one's own piece is not copied"
            for source, x in enumerate(arrived):
                assert engine.dtype(x) == kind
                found[f"{layout} {kind} {source}"] = engine.numpy(x)
    first = engine.exchange([engine.full((2,), float(rank))] * size, [(2,)] * size)
    second = engine.exchange([engine.full((3,), float(10 + rank))] * size, [(3,)] * size)
    found["second"], found["first"] = (np.stack([engine.numpy(x) for x in wait()]) for wait in (second, first))
    np.savez(f"rank{rank}.npz", **found)
    assert "torch._dynamo" not in sys.modules, "torch's compiler takes a second to import, and is for who compiles"
    engines.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
