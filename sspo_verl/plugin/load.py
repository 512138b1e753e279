"""Entry point that verl loads as a plugin. verl logs a plugin's failure only at DEBUG; this logs it as an error."""

import logging

try:
    import sspo_verl.plugin.register  # noqa: F401
except Exception:
    logging.getLogger("sspo_verl").exception("sspo_verl could not be loaded: SSPO is missing in this process.")
    raise
