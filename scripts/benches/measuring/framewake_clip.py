"""One process of the benchmark ``clip``: a clip as ``framewake animate`` makes it, or two of them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]


def main() -> None:
    """Make clips; the last line says how long it took."""
    engine, steps, frames, folder, kind, started = sys.argv[1:]
    from framewake import Output, Pipeline, Request
    from framewake.pipeline import Step

    pipeline = Pipeline.load("demo", engine=engine)
    picture = "demo/red-circle"
    request = Request("the red circle moves right", image=picture, steps=int(steps), frames=int(frames), seed=1)
    told = {}
    for name in ("cold", "warm") if kind == "warm" else ("cold",):
        begin = time.time()
        for event in pipeline.run(request, Output(Path(folder) / f"{name}.mp4")):
            if isinstance(event, Step):
                told.setdefault("first_step", time.time() - float(started))
        told[name] = time.time() - begin
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
