"""One of two processes: every collective, its results as JSON. Run as ``python collectives_check.py KIND FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from framewake import engine as engines


def main(kind: str, folder: str) -> None:
    engine = engines.get(f"{kind}:cpu")
    if kind == "torch":
        import torch.distributed

        torch.distributed.init_process_group("gloo")
    else:
        from mindspore import communication

        communication.init("mccl")
    rank = engine.rank()
    x = engine.asarray(np.arange(8, dtype=np.float32).reshape(2, 4) + 10 * rank)
    found = {
        "size": engine.size(),
        "all_gather": engine.numpy(engine.all_gather(x, 1)).tolist(),
        "all_to_all": engine.numpy(engine.all_to_all(x, 1, 0)).tolist(),
        "all_reduce": engine.numpy(engine.all_reduce(x)).tolist(),
        "broadcast": engine.numpy(engine.broadcast(x, 1)).tolist(),
        "unchanged": engine.numpy(x).tolist(),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    if kind == "torch":
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
