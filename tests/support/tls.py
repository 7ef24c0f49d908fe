"""TLS in front of real servers that speak none: a proxy with certificates of an authority of the test."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from threading import Thread

import trustme

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # how a Postgres client asks for TLS


class TlsProxy:
    """Takes TLS on `port` and passes plain bytes on to `target`, a TCP address or the path of a socket.

    Its certificate is for `name`. With `postgres`, the client asks for TLS as that protocol has it.
    """

    def __init__(
        self, authority: trustme.CA, target: tuple[str, int] | str, *, name: str, postgres: bool = False
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self._context)
        self._target, self._postgres = target, postgres
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError):  # also a client that does not trust the certificate
            if self._postgres:
                if plain.recv(len(_SSL_REQUEST), socket.MSG_WAITALL) != _SSL_REQUEST:
                    plain.close()  # no password comes in the clear
                    return
                plain.sendall(b"S")
            client = self._context.wrap_socket(plain, server_side=True)
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            server.connect(self._target)
            Thread(target=_pump, args=(server, client), daemon=True).start()
            _pump(client, server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def certificate(authority: trustme.CA, path: Path) -> Path:
    """The authority's certificate as a PEM file."""
    authority.cert_pem.write_to_path(str(path))
    return path
