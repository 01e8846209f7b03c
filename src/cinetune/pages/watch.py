"""`cinetune train --watch`: the training page on a local address, for as long as the training goes on.

Only this machine can reach it, and it gives out nothing but the page and the sample films.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from cinetune.errors import ConfigError, StoreError
from cinetune.pages.live import folder_of, page
from cinetune.store import Project

__all__ = ["serving"]

HOST = "127.0.0.1"
_FILM = re.compile(r"/(?:look|plain)/samples/step_\d{6,}\.mp4")
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})", re.ASCII)
_LAST_LOOK = 5.0
"""Seconds within which a reader counts as still there, and is waited for so that it sees how the run ended."""


@contextmanager
def serving(project: Project, port: int = 0) -> Iterator[str]:
    """Serve the page inside the `with` block; the value is its address. `port` 0 takes any that is free.

    Raises `ConfigError` when the port is taken or not ours to take.
    """
    try:
        server = _Server((HOST, port), _handler(project))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}",
            where="--port",
            remedy="leave --port out (a free one is found), or name another",
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
        server.wait_for_readers()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    asked_at = 0.0

    def wait_for_readers(self) -> None:
        """Until an open page has asked once more, or has gone."""
        now = time.monotonic()
        while self.asked_at and now - self.asked_at < _LAST_LOOK and self.asked_at < now:
            time.sleep(0.1)
            if time.monotonic() - now > _LAST_LOOK:
                return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle of a film is no event."""


def _handler(project: Project) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.partition("?")[0]
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (HOST, "localhost"):  # another site's name that was made to point here
                self._answer(HTTPStatus.FORBIDDEN, b"", "text/plain")
            elif name == "/":
                self._page()
                cast("_Server", self.server).asked_at = time.monotonic()
            elif _FILM.fullmatch(name) and (path := folder_of(project) / name[1:]).is_file():
                self._film(path.read_bytes())
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"not here", "text/plain")

        def _page(self) -> None:
            try:
                self._answer(HTTPStatus.OK, page(project).encode(), "text/html; charset=utf-8")
            except StoreError as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), "text/plain; charset=utf-8")

        def _film(self, film: bytes) -> None:
            """Whole, or the part a player asked for: without parts, browsers cannot seek."""
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            if asked is None:
                return self._answer(HTTPStatus.OK, film, "video/mp4", **{"Accept-Ranges": "bytes"})
            first, last = int(asked[1]), min(int(asked[2] or len(film) - 1), len(film) - 1)
            if first > last:
                return self._answer(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", "video/mp4",
                    **{"Content-Range": f"bytes */{len(film)}"},
                )  # fmt: skip
            part = {"Content-Range": f"bytes {first}-{last}/{len(film)}", "Accept-Ranges": "bytes"}
            return self._answer(HTTPStatus.PARTIAL_CONTENT, film[first : last + 1], "video/mp4", **part)

        def _answer(self, status: HTTPStatus, body: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Requests are no news to whoever watches the training."""

    return Handler
