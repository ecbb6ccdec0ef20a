"""Over TLS the certificate must be that of the endpoint's name, although the connection goes to an address."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from webhooks import transport


def write_certificate(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName(
        [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    )
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{name}.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server on this machine with a certificate for hooks.example, which we trust."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    certificate = write_certificate(tmp_path, "hooks.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(transport.certifi, "where", lambda: str(certificate))
    monkeypatch.setattr(transport, "resolve_host", lambda *_, **__: ["127.0.0.1"])
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_the_certificate_of_the_name_is_accepted_at_the_pinned_address(port: int) -> None:
    answer = transport.post(f"https://hooks.example:{port}/", body=b"{}", headers={}, allow_private=True)
    assert (answer.status, answer.error) == (204, "")


def test_a_certificate_of_another_name_is_refused(port: int) -> None:
    answer = transport.post(f"https://other.example:{port}/", body=b"{}", headers={}, allow_private=True)
    assert answer.status is None
    assert answer.error.startswith("the certificate is not valid: ")


def test_a_certificate_that_nobody_vouches_for_is_refused(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = write_certificate(tmp_path, "stranger.example")
    monkeypatch.setattr(transport.certifi, "where", lambda: str(stranger))
    answer = transport.post(f"https://hooks.example:{port}/", body=b"{}", headers={}, allow_private=True)
    assert answer.status is None
    assert answer.error.startswith("the certificate is not valid: ")
