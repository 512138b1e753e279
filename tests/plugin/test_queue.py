"""TransferQueue's sockets: who knows the run's secret gets messages through, and nobody else does."""

from pathlib import Path

import pytest
import zmq

pytest.importorskip("transfer_queue")
import verl  # noqa: F401  loads the plugin
from ray import cloudpickle
from transfer_queue.controller import TransferQueueController
from transfer_queue.storage.simple_storage import SimpleStorageUnit
from transfer_queue.utils import zmq_utils
from transfer_queue.utils.zmq_utils import ZMQMessage, ZMQRequestType

from sspo_verl.plugin import queue

SECRET = "the secret of this run"
HOST = "127.0.0.1"


class Trap:
    """Its pickle makes a file where it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (queue.SECRET, queue.ADDRESS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def context():
    context = zmq.Context()
    context.linger = 0  # of its sockets: what is not sent is not waited for
    yield context
    context.destroy(linger=0)


@pytest.fixture
def server(context):
    """A function that binds a server of TransferQueue's; the environment decides how."""

    def bind():
        socket = zmq_utils.create_zmq_socket(context, zmq.ROUTER, HOST)
        return socket, socket.bind_to_random_port(f"tcp://{HOST}")

    return bind


def senders(server, context, monkeypatch, secrets: dict[str, str], folder: Path) -> list[str]:
    """Whose messages arrive at a server, of one client with each secret; the last of `secrets` must get one through."""
    socket, port = server
    for name, secret in secrets.items():
        monkeypatch.setenv(queue.SECRET, secret)
        client = zmq_utils.create_zmq_socket(context, zmq.DEALER, HOST, identity=name.encode())
        client.connect(f"tcp://{HOST}:{port}")
        message = ZMQMessage.create(ZMQRequestType.PUT_DATA, name, {"trap": Trap(folder / name)})
        client.send_multipart(message.serialize())
    arrived = []
    while name not in arrived:
        assert socket.poll(60_000), arrived
        arrived.append(ZMQMessage.deserialize(socket.recv_multipart()[1:]).sender_id)
    while socket.poll(200):  # nothing comes after it
        arrived.append(ZMQMessage.deserialize(socket.recv_multipart()[1:]).sender_id)
    return arrived


def test_only_who_knows_the_secret_gets_a_message_through(server, context, monkeypatch, tmp_path):
    monkeypatch.setenv(queue.SECRET, SECRET)
    secrets = {"stranger": "", "other": "the secret of another run", "member": SECRET}
    assert senders(server(), context, monkeypatch, secrets, tmp_path) == ["member"]
    assert [file.name for file in tmp_path.iterdir()] == ["member"]  # the other pickles were not loaded


def test_without_a_secret_transfer_queue_is_as_it_was(server, context, monkeypatch, tmp_path):
    bound = server()
    assert bound[0].getsockopt(zmq.MECHANISM) == zmq.NULL
    assert senders(bound, context, monkeypatch, {"anybody": ""}, tmp_path) == ["anybody"]


def test_a_client_does_not_talk_to_a_server_without_the_secret(server, context, monkeypatch):
    socket, port = server()  # plain
    monkeypatch.setenv(queue.SECRET, SECRET)
    client = zmq_utils.create_zmq_socket(context, zmq.DEALER, HOST)
    client.connect(f"tcp://{HOST}:{port}")
    client.send(b"hello")
    assert not socket.poll(300)


def test_sockets_within_a_process_work_with_a_secret(context, monkeypatch):
    """The storage hands requests to its worker over inproc://, from one DEALER to another."""
    monkeypatch.setenv(queue.SECRET, SECRET)
    front, worker = (zmq_utils.create_zmq_socket(context, zmq.DEALER, HOST) for _ in range(2))
    front.bind("inproc://worker")
    worker.connect("inproc://worker")
    front.send(b"request")
    assert worker.poll(60_000)
    assert worker.recv() == b"request"


def test_the_address_is_the_one_that_is_set(monkeypatch):
    monkeypatch.setenv(queue.ADDRESS, HOST)
    assert zmq_utils.get_node_ip_address() == HOST
    monkeypatch.delenv(queue.ADDRESS)
    monkeypatch.setattr(zmq_utils.ray.util, "get_node_ip_address", lambda: "10.1.2.3")
    assert zmq_utils.get_node_ip_address() == "10.1.2.3"


def test_a_secret_that_cannot_be_used_is_refused(monkeypatch):
    queue.check()
    monkeypatch.setenv(queue.SECRET, "short")
    with pytest.raises(ValueError, match="SSPO_QUEUE_SECRET has 5 characters"):
        queue.check()
    monkeypatch.setenv(queue.SECRET, SECRET)
    queue.check()
    monkeypatch.setattr(zmq, "has", lambda _: False)
    with pytest.raises(ValueError, match="built without CURVE"):
        queue.check()


def test_a_process_without_the_plugin_finds_both_functions_by_name(context, monkeypatch):
    """Ray pickles the classes of controller and storage with what they call, and their processes do not import verl."""
    for actor in (TransferQueueController, SimpleStorageUnit):
        pickled = cloudpickle.dumps(actor.__ray_metadata__.modified_class)
        assert pickled.count(queue.__name__.encode()) == 1  # the second name refers back to the first
        for function in (b"create_zmq_socket", b"get_node_ip_address"):
            assert function in pickled
    originals = dict(queue._originals)  # below: a process that has them unchanged
    assert originals.keys() == {"create_zmq_socket", "get_node_ip_address"}
    for name, function in originals.items():
        monkeypatch.setattr(zmq_utils, name, function)
    monkeypatch.setattr(queue, "_originals", {})
    monkeypatch.setenv(queue.SECRET, SECRET)
    for _ in range(2):  # the second: the plugin is loaded after all, and wraps nothing twice
        assert queue.create_zmq_socket(context, zmq.ROUTER, HOST).getsockopt(zmq.MECHANISM) == zmq.CURVE
        queue.wrap_sockets(zmq_utils)
