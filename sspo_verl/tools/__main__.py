"""The console script `sspo`, and `python -m sspo_verl.tools`."""

import sys

from sspo_verl.extras import MissingExtra, require


def sspo() -> None:
    """Run the command `sspo`."""
    try:
        require("tools", "the command sspo")
        from sspo_verl.tools.main import main

        main(prog_name="sspo")
    except MissingExtra as error:
        sys.exit(f"sspo: {error}")


if __name__ == "__main__":
    sspo()
