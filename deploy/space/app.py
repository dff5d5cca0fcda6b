"""framewake as a Space: page and API for strangers on one port, everything written below this file's folder."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
FRAMERS = ("https://huggingface.co", "https://modelers.cn")  # the pages that show a Space inside themselves

if __name__ == "__main__":
    (DATA / "temporary").mkdir(parents=True, exist_ok=True)
    os.environ |= {"TMPDIR": str(DATA / "temporary"), "MPLCONFIGDIR": str(DATA / "temporary")}
    os.environ |= {"GRADIO_TEMP_DIR": str(DATA / "temporary"), "XDG_CACHE_HOME": str(DATA / "temporary")}
    from framewake.app.cli import main

    place = ["--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860"), "--data", str(DATA)]
    limits = ["--max-queued", "8", "--max-per-minute", "12", "--max-upload-mb", "10", "--max-megapixels", "20"]
    framers = [word for address in FRAMERS for word in ("--allow-origin", address)]
    # FRAMEWAKE_CHECKPOINT is read by the command itself; without it, the demonstration is served.
    main(["serve", "--public", *place, *limits, "--keep", "100", *framers])
