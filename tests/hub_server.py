"""A server that speaks as the hub does for models, for tests: `python hub_server.py ROOT LOG FAULTS`.

ROOT holds `owner/name/...`. It answers the model's facts, its list of files with sizes and hashes, and the files: small
ones at once, `.safetensors` through a redirect, with byte ranges, as the hub's own store does. FAULTS is JSON:

    status    {path: code}      refuse a file, or "api" for the list
    gated     true              refuse with the header that says so
    drop      {path: bytes}     hang up after so many bytes, every time
    wrong     [path]            other bytes of the same length
    delay     seconds           between pieces of 4 KiB
    drip      {path: seconds}   between bytes of a file, or of "api"
    says      {"facts"|"tree": [text, times]}  the answer in place of the true one
    entry     {key: value}      what is put over the entry of the denoiser's file in the list; its "lfs" too
    more      [entry]           further entries of the list
Each request is written to LOG, one JSON line each. The port is printed first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

__all__ = ["COMMIT", "Hub", "serve_hub"]

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """A running server: its URL and what it was asked."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self._log = url, log

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def ranges(self, path: str) -> list[int]:
        """First byte of each request for a file's content."""
        return [one["start"] for one in self.requests() if one["path"].endswith(path) and one["path"][:5] == "/cdn/"]


@contextlib.contextmanager
def serve_hub(root: Path, log: Path, **faults: Any) -> Iterator[Hub]:
    """Start the server as a process of its own; it is ended with the block."""
    log.write_text("", encoding="utf-8")
    command = [sys.executable, __file__, str(root), str(log), json.dumps(faults)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Hub(f"http://127.0.0.1:{int(process.stdout.readline())}", log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _entry(root: Path, path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    name = path.relative_to(root).as_posix()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data)}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if path.suffix == ".safetensors":
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def main(root: Path, log: Path, faults: dict[str, Any]) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlparse(self.path).path)
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"path": path, "start": start}) + "\n")
            if path.startswith("/api/models/"):
                return self.api(path.removeprefix("/api/models/"))
            if path.startswith("/cdn/"):
                owner, name, *rest = path.removeprefix("/cdn/").split("/")
                return self.content(root / owner / name / "/".join(rest), "/".join(rest), start)
            owner, name, _, _, *rest = path.removeprefix("/").split("/")
            file, inside = root / owner / name / "/".join(rest), "/".join(rest)
            if faults.get("status", {}).get(inside) or not file.is_file():
                return self.answer(faults.get("status", {}).get(inside, 404), b"{}")
            if file.suffix != ".safetensors":
                return self.answer(200, file.read_bytes())
            return self.answer(302, b"", {"Location": f"/cdn/{owner}/{name}/{inside}"})

        do_HEAD = do_GET

        def api(self, path: str) -> None:
            owner, name, *rest = path.split("/")
            folder = root / owner / name
            if faults.get("gated"):
                return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
            if status := faults.get("status", {}).get("api"):
                return self.answer(status, b"{}")
            if not folder.is_dir():
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if pause := faults.get("drip", {}).get("api"):
                return self.drip(b" " * 100_000, pause)
            if said := faults.get("says", {}).get("tree" if rest[:1] == ["tree"] else "facts"):
                return self.answer(200, said[0].encode() * said[1])
            if rest[:1] == ["tree"]:
                entries = [_entry(folder, file) for file in sorted(folder.rglob("*")) if file.is_file()]
                for entry in entries:
                    if entry["path"].startswith("transformer/diffusion"):
                        entry.update(faults.get("entry", {}))
                return self.answer(200, json.dumps(entries + faults.get("more", [])).encode())
            facts = {"id": f"{owner}/{name}", "sha": COMMIT, "cardData": {"license": "apache-2.0"}, "siblings": []}
            return self.answer(200, json.dumps(facts).encode())

        def content(self, file: Path, inside: str, start: int) -> None:
            data = file.read_bytes()
            if pause := faults.get("drip", {}).get(inside):
                return self.drip(data[start:], pause)
            if inside in faults.get("wrong", []):
                data = bytes(255 - byte for byte in data)
            piece = data[start:]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(piece)))
            if "Range" in self.headers:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            limit = faults.get("drop", {}).get(inside, len(piece))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for at in range(0, min(limit, len(piece)), 4096):
                    self.wfile.write(piece[at : min(at + 4096, limit)])
                    time.sleep(faults.get("delay", 0))
            if limit < len(piece):
                self.close_connection = True

        def drip(self, body: bytes, pause: float) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(pause)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
