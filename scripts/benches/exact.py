"""Every benchmark of the exact path on this processor, one after another; about ten minutes on an idle machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

NAMES = {
    "startup": [],
    "clip": ["--rounds", "2"],
    "text": [],
    "vae-encode": ["--rounds", "3"],
    "vae-decode": ["--rounds", "3"],
    "dit-step": [],
    "memory": ["--clips", "demo"],
}


def main() -> int:
    """Run them; options are handed on to each."""
    failed = []
    for name, options in NAMES.items():
        begin = time.perf_counter()
        script = Path(__file__).with_name(f"{name.replace('-', '_')}.py")
        done = subprocess.run([sys.executable, str(script), *options, *sys.argv[1:]], check=False)
        failed += [name] if done.returncode else []
        sys.stdout.write(f"{name}: {time.perf_counter() - begin:.0f} s\n")
        sys.stdout.flush()
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
