"""``python -m framewake``: the same as ``framewake``."""

from framewake.app.cli import main

if __name__ == "__main__":
    main()
