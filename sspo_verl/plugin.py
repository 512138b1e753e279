"""What verl's entry point names. verl logs a plugin's failure at DEBUG only; this makes it heard, then hands it on."""

import logging

try:
    import sspo_verl.register  # noqa: F401
except Exception:
    logging.getLogger("sspo_verl").exception("sspo_verl could not be loaded: there is no SSPO in this process.")
    raise
