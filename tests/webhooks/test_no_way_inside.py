"""Whatever an endpoint's address says or resolves to, no connection to an inner address is even begun."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.webhooks.test_endpoint_addresses import INSIDE
from tests.webhooks.test_transport_tls import write_certificate
from webhooks import addresses, transport
from webhooks.transport import post

PUBLIC = "93.184.216.34"
BODY = b"{}"

WRITTEN = [
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0/",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::a9fe:a9fe]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[2606:4700::5efe:7f00:1]/",
    "https://[2606:4700::200:5efe:7f00:1]/",
    "https://[5f00::1]/",
    "https://[fe80::1%25lo]/",
    "https://[fe80::1%lo]/",
    "https://[::1%25lo]/",
    "https://[v1.::1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fd00:ec2::254]/",
    "https://100.100.100.200/",
    "https://①②⑦.⓪.⓪.①/",
    "https://１２７.０.０.１/",
    "https://127。0。0。1/",
    "https://%31%32%37.0.0.1/",
    "https://127.0.0.1%2eexample/",
    "https://hooks.example@127.0.0.1/",
    "https://127.0.0.1@hooks.example/",
    "https://@127.0.0.1/",
    "https://hooks.example:443@127.0.0.1/",
    "https://hooks.example\\@127.0.0.1/",
    "https://127.0.0.1\\.hooks.example/",
    "https://127.0.0.1#@hooks.example/",
    "https://hooks.example\t@127.0.0.1/",
    "https://127.0.0.\n1/",
    "https://127.0.0.1 hooks.example/",
    "https:///127.0.0.1/",
    "https:127.0.0.1",
    "//127.0.0.1/",
    "https://127.0.0.1:443:443/",
    "https://[127.0.0.1]/",
    "https://127.0.0.1\x00.hooks.example/",
    "http://hooks.example/",
    "https://hooks.example:8443/",
    "gopher://127.0.0.1/",
    "file:///etc/passwd",
    "unix:///var/run/docker.sock",
]


class Recorder:
    """Stands under the socket layer: notes who is called, and lets nobody through but our own server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[str] = []
        self.route: tuple[str, int] | None = None
        self._connect = socket.socket.connect
        monkeypatch.setattr(socket.socket, "connect", lambda sock, address: self.connect(sock, address))
        monkeypatch.setattr(socket.socket, "connect_ex", lambda sock, address: self.connect(sock, address))

    def connect(self, sock: socket.socket, address: Any) -> None:
        if sock.type == socket.SOCK_DGRAM:  # asks the kernel for a way, and sends nothing
            raise OSError("no network in this test")
        self.called.append(str(address[0]))
        if self.route is None:
            raise ConnectionRefusedError("nobody is called in this test")
        self._connect(sock, self.route)

    def inner(self) -> list[str]:
        return [text for text in self.called if not addresses.is_public(ipaddress.ip_address(text))]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Answers in turn, the last one for ever: a name that changes its mind."""
    answers: list[list[str]] = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if addresses.read_address(host):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


def send(url: str) -> transport.Answer:
    return post(url, body=BODY, headers={}, allow_private=False, seconds=60)


@pytest.mark.parametrize("url", WRITTEN)
def test_nobody_is_called_at_what_is_written_to_lead_inside(recorder: Recorder, url: str) -> None:
    answer = send(url)
    assert (answer.status, recorder.called) == (None, [])
    assert answer.error


@pytest.mark.parametrize("address", INSIDE)
def test_nobody_is_called_at_a_name_that_leads_inside(
    recorder: Recorder, resolver: list[list[str]], address: str
) -> None:
    resolver.append([address])
    assert "not a public address" in send("https://hooks.example/").error
    resolver[:] = [[PUBLIC, address]]
    assert "not a public address" in send("https://hooks.example/").error
    assert recorder.called == []


def test_the_recorder_sees_who_is_called(recorder: Recorder, resolver: list[list[str]]) -> None:
    resolver.append([PUBLIC])
    assert send("https://hooks.example/").status is None
    assert recorder.called == [PUBLIC]


def test_a_name_that_changes_its_mind_is_asked_once_and_taken_at_its_word(
    recorder: Recorder, resolver: list[list[str]]
) -> None:
    resolver += [[PUBLIC], ["127.0.0.1"]]
    send("https://hooks.example/")
    assert recorder.called == [PUBLIC]
    assert "not a public address" in send("https://hooks.example/").error  # the next try, the next question
    assert recorder.inner() == []


def test_this_machine_is_not_called_even_at_a_public_address(
    recorder: Recorder, resolver: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.append([PUBLIC])
    monkeypatch.setattr(addresses, "is_own", lambda address: str(address) == PUBLIC)
    assert "this machine" in send("https://hooks.example/").error
    assert recorder.called == []


def test_an_address_is_known_as_our_own() -> None:
    assert addresses.is_own(ipaddress.ip_address("127.0.0.1"))
    assert not addresses.is_own(ipaddress.ip_address(PUBLIC))


def test_networks_of_our_own_can_be_named(
    recorder: Recorder, resolver: list[list[str]], settings: Any
) -> None:
    settings.WEBHOOK_REFUSED_NETWORKS = ["93.184.216.0/24"]
    resolver.append([PUBLIC])
    assert "not a public address" in send("https://hooks.example/").error
    assert recorder.called == []


@pytest.fixture
def redirecting(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A TLS server that stands in for a public one and sends everybody to the metadata service."""
    certificate = write_certificate(tmp_path, "hooks.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    requests: list[bytes] = []
    context.sni_callback = lambda sock, name, _: names.append(name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True) as secure:
            request = b""
            while not request.endswith(BODY):  # closed with a part unread, the answer would be lost with it
                request += secure.recv(65536)
            requests.append(request)
            secure.sendall(
                b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n"
            )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setattr(transport.certifi, "where", lambda: str(certificate))
    yield listener.getsockname(), names, requests
    thread.join(60)
    listener.close()


def test_a_redirect_inside_is_not_followed_and_name_and_host_are_kept(
    redirecting: Any, recorder: Recorder, resolver: list[list[str]]
) -> None:
    recorder.route, names, requests = redirecting
    resolver.append([PUBLIC])
    answer = send("https://hooks.example/in?shop=1")
    assert (answer.status, answer.is_success) == (302, False)
    assert recorder.called == [PUBLIC]
    assert names == ["hooks.example"]
    assert b"POST /in?shop=1 HTTP/1.1\r\n" in requests[0]
    assert b"\r\nHost: hooks.example\r\n" in requests[0]
