"""The original HunyuanVideo-I2V command line, run by framewake: the same flags, the same file names."""

import sys
from pathlib import Path

# Also from a fresh clone that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from framewake.console.ending import run_program


def work() -> None:
    from framewake.app.original import main  # here, so that a package that does not start is told as all else is

    main()


if __name__ == "__main__":
    run_program("sample_image2video.py", work)
