"""``python -m persidict`` is the command ``persidict``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say which extra brings it."""
    try:
        from persidict.cli.commands import persidict
    except KeyboardInterrupt:
        sys.exit(130)  # while it is being loaded
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich"):
            raise
        sys.exit(
            f"persidict: the command needs {missing.name}, which the extra `cli` brings:"
            " pip install 'persidict[cli]'"
        )
    persidict(prog_name="persidict")


if __name__ == "__main__":
    main()
