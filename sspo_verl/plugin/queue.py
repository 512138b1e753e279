"""Secures TransferQueue, verl's channel for rollouts: authentication of its sockets, and the address they bind to.

Its ZMQ sockets bind to the node's address, accept messages from anyone, and unpickle them: whoever can reach the port
can run code as you. Two environment variables change that, in every process of the run:

SSPO_QUEUE_SECRET: text of at least 16 characters. Each socket then uses ZMQ's CURVE (encryption with elliptic-curve
    keys). The server's key pair is derived from the secret with HMAC-SHA256, so all processes that know the secret know
    its public key, and nobody else does: it is never sent, and without it no message gets through the handshake.
SSPO_QUEUE_ADDRESS: the address to bind to instead of the node's: 127.0.0.1, for a run on one node.

If neither is set, nothing is changed.

TransferQueue's controller and storage are Ray actors whose processes do not import verl, so the plugin is not loaded
there. Ray pickles their classes together with the functions they call, and pickles those by name: the two functions
below are looked up in this module, so they also apply in those processes.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import sys
from typing import Any

from sspo_verl.plugin.require import require

SECRET = "SSPO_QUEUE_SECRET"
ADDRESS = "SSPO_QUEUE_ADDRESS"
SHORTEST = 16  # characters; someone who records a handshake can try secrets offline
_PURPOSE = b"sspo_verl: key of TransferQueue's servers"

_originals: dict[str, Any] = {}  # TransferQueue's own functions


def wrap_sockets(zmq_utils) -> None:
    """Patch transfer_queue.utils.zmq_utils: the two functions that create each socket and find each address. verl
    imports TransferQueue before its plugins, and other modules import the two by name: they are replaced there too."""
    if zmq_utils.create_zmq_socket is create_zmq_socket:  # by `_original`, before the plugin was loaded
        return
    _originals.update(
        create_zmq_socket=require(zmq_utils, "create_zmq_socket", ("ctx", "socket_type", "ip", "identity")),
        get_node_ip_address=require(zmq_utils, "get_node_ip_address", ()),
    )
    loaded = [module for name, module in sys.modules.items() if name.startswith("transfer_queue.")]
    for name, function in (("create_zmq_socket", create_zmq_socket), ("get_node_ip_address", get_node_ip_address)):
        for module in loaded:
            if getattr(module, name, None) is _originals[name]:
                setattr(module, name, function)


def create_zmq_socket(ctx, socket_type, ip, identity=None):
    """TransferQueue's function, with the socket set up as a CURVE server or client if there is a secret. Within a
    process (inproc://) ZMQ has no handshake, and the keys are not used."""
    socket = _original("create_zmq_socket")(ctx, socket_type, ip, identity=identity)
    if secret := _secret():
        _authenticate(socket, secret)
    return socket


def get_node_ip_address() -> str:
    """Replaces TransferQueue's function: the address that its servers bind to and announce to their clients."""
    return os.environ.get(ADDRESS) or _original("get_node_ip_address")()


def check() -> None:
    """Raise ValueError, naming the variable and the fix, if the secret is set and cannot be used."""
    _secret()


def _original(name: str):
    if not _originals:  # in a process that did not load the plugin
        from transfer_queue.utils import zmq_utils

        wrap_sockets(zmq_utils)
    return _originals[name]


def _secret() -> str | None:
    secret = os.environ.get(SECRET)
    if not secret:
        return None
    import zmq

    if len(secret) < SHORTEST:
        raise ValueError(
            f"{SECRET} has {len(secret)} characters, and {SHORTEST} are the minimum: `openssl rand -hex 32` makes one."
        )
    if not zmq.has("curve"):
        raise ValueError(
            f"{SECRET} is set, but this pyzmq ({zmq.__version__}, libzmq {zmq.zmq_version()}) was built without CURVE, "
            f"so TransferQueue's sockets cannot be protected. Install pyzmq from PyPI, or unset {SECRET} if no "
            "other user can reach the nodes (docs/security.md)."
        )
    return secret


def _authenticate(socket, secret: str) -> None:
    import zmq

    server_public, server_secret = _server_keys(secret)
    if socket.socket_type == zmq.ROUTER:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, server_secret)
    else:
        public, own_secret = _client_keys()
        socket.setsockopt(zmq.CURVE_SERVERKEY, server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, own_secret)


@functools.cache
def _server_keys(secret: str) -> tuple[bytes, bytes]:
    """(public, secret) key, in ZMQ's text form (Z85)."""
    import zmq
    from zmq.utils import z85

    key = z85.encode(hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).digest())
    return zmq.curve_public(key), key


@functools.cache
def _client_keys() -> tuple[bytes, bytes]:
    """(public, secret) key of this process's clients. The server takes any client that knows its public key."""
    import zmq

    return zmq.curve_keypair()
