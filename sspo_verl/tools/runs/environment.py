"""Environment for processes that run verl, Ray or vLLM: quiet, and with a temporary folder with a short path."""

from __future__ import annotations

import os
import secrets
import tempfile

from sspo_verl.plugin.queue import ADDRESS, SECRET

# Ray creates Unix sockets below its directory, and their paths may have 107 bytes: Ray's own part is about 70, and ours
# below this folder about 20.
LONGEST_TEMP_DIR = 20

QUIET_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
# Ray waits 30 s for its node, which gives each of its two agents 15. A value that the user has set takes precedence.
RAY_START_ENVIRONMENT = {"RAY_raylet_start_wait_time_s": "60"}
# On a machine without an accelerator.
CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",  # otherwise vLLM would compile C++ on the first sample
}


def short_directory() -> str:
    """A new directory with a short path that only this user can access. The caller removes it.

    Ray makes its own folder accessible to everybody: give it one inside this directory.
    """
    default = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="sspo-", dir=default if len(default) <= LONGEST_TEMP_DIR else "/tmp")


def guards() -> dict[str, str]:
    """Variables that keep other users out of a run on this machine (docs/security.md): a token for Ray, which would
    otherwise write one to a file; a secret for TransferQueue, and loopback as its address. A Ray token that is already
    set is kept."""
    has_token = any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    token = {} if has_token else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(24)}
    return {**token, SECRET: secrets.token_hex(32), ADDRESS: "127.0.0.1"}
