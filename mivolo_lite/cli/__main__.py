"""``python -m mivolo_lite.cli COMMAND ...`` is ``mivolo-lite COMMAND ...``."""

from mivolo_lite.cli import main

if __name__ == "__main__":
    main()
