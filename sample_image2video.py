"""The original HunyuanVideo-I2V command line, run by framewake: the same flags, the same file names."""

import sys
from pathlib import Path

# Also from a fresh clone that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from framewake.app.original import main

if __name__ == "__main__":
    main()
