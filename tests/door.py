"""A TCP door to the PostgreSQL of the tests, behind which a test can stand in for the network."""

import socket
import threading
from contextlib import suppress
from pathlib import Path


class Door:
    """Lets everything through; a subclass says what becomes of the answers."""

    # What a connection through it must not do: talk in a cipher.
    OPTIONS = {"sslmode": "disable", "gssencmode": "disable"}

    def __init__(self, host: str, port: int | str):
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.begin(self.serve)

    def close(self) -> None:
        shut(self.listener)
        for end in self.ends:
            shut(end)
        for thread in self.threads:
            thread.join(20)
        for end in (self.listener, *self.ends):
            end.close()

    def begin(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def serve(self) -> None:
        while True:
            try:
                front, _ = self.listener.accept()
            except OSError:
                return
            back = self.reach()
            self.ends += [front, back]
            self.begin(self.forward, front, back)
            self.begin(self.answer, back, front)

    def reach(self) -> socket.socket:
        host, port = self.target
        if not host.startswith("/"):
            return socket.create_connection(self.target)
        back = socket.socket(socket.AF_UNIX)
        back.connect(str(Path(host) / f".s.PGSQL.{port}"))
        return back

    def forward(self, front: socket.socket, back: socket.socket) -> None:
        with suppress(OSError):
            while data := front.recv(65536):
                back.sendall(data)
        shut(back)

    def answer(self, back: socket.socket, front: socket.socket) -> None:
        with suppress(OSError):
            self.carry(back, front)
        shut(front)
        shut(back)

    def carry(self, back: socket.socket, front: socket.socket) -> None:
        """Pass answers on until there are no more, or none shall come."""
        raise NotImplementedError


def shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
