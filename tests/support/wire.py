"""A TCP relay in front of a real server: what happens to connections between the job and it.

::

    with Wire("127.0.0.1", 5432) as wire:
        wire.loses = lambda sent: sent == b"..."   # carried out, but the answer never comes
        wire.down(); wire.up()                     # nobody listens; listens again, on the same port
        wire.reset_after = 500                     # bytes of an answer, then the connection is reset
"""

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from time import sleep
from typing import Self

_LINGER_NOT = struct.pack("ii", 1, 0)
_PIECE = 65_536


class Wire:
    """Relays to `host`, a name or the folder of a Unix socket as libpq has it, and `port`."""

    def __init__(self, host: str, port: int) -> None:
        self.loses: Callable[[bytes], bool] = lambda sent: False
        """Asked for each piece that the client sends: the connection ends when the server has answered it."""
        self.delay: Callable[[], float] = lambda: 0.0
        """Seconds by which the next piece of an answer is late."""
        self.reset_after: int | None = None
        """Bytes of answers on one connection after which it is reset; for connections made from now on."""
        self.lost = self.resets = 0
        self._host, self._target_port = host, port
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self.port = 0
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Listen; on the port of before, if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._accepting = Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def down(self) -> None:
        """Let nobody connect, and end all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut()

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            ending, self._open = self._open, set()
        for end in ending:
            _end(end)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = self._connected()
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
            relay = _Relay(self, client, server)
            for way in (relay.there, relay.back):
                Thread(target=way, daemon=True).start()

    def _connected(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._target_port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self._host}/.s.PGSQL.{self._target_port}")
        return server

    def closed(self, *ends: socket.socket) -> None:
        with self._lock:
            self._open -= set(ends)
        for end in ends:
            _end(end)


class _Relay:
    """One connection."""

    def __init__(self, wire: Wire, client: socket.socket, server: socket.socket) -> None:
        self._wire, self._client, self._server = wire, client, server
        self._losing = False
        self._left = wire.reset_after

    def there(self) -> None:
        with suppress(OSError):
            while sent := self._client.recv(_PIECE):
                self._losing |= self._wire.loses(sent)
                self._server.sendall(sent)
        self._wire.closed(self._client, self._server)

    def back(self) -> None:
        with suppress(OSError):
            while answer := self._server.recv(_PIECE):
                sleep(self._wire.delay())
                if self._losing:
                    self._wire.lost += 1
                    break
                if self._left is not None and len(answer) > self._left:
                    self._reset(answer[: self._left])
                    break
                self._client.sendall(answer)
                self._left = None if self._left is None else self._left - len(answer)
        self._wire.closed(self._client, self._server)

    def _reset(self, last: bytes) -> None:
        self._wire.resets += 1
        self._client.sendall(last)
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._client.close()  # with this, the kernel sends a reset


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
