"""A vision-language model behind an OpenAI-compatible URL (`POST <base_url>/chat/completions`): vLLM, llama.cpp,
Ollama, or a service. Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from typing import TYPE_CHECKING, Any

from cinetune.errors import ConfigError, ModelError, ServiceError
from cinetune.outside import parse_json

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ChatCaptioner"]

FIRST_WAIT = 1.0
"""Seconds before the first repeat; doubled for each further one."""
LONGEST_WAIT = 60.0
_MOST_BYTES = 8 << 20
_PASSING = {408, 409, 425, 429}
_OPTIONAL = ("max_tokens", "temperature")  # some services refuse these by name; the question works without them


class _Deadline:
    """A limit for a whole exchange: when it is over, its connections are hung up, in whatever they are. A limit for
    each read alone lets a server that drips go on for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._lines: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._hang_up)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def opener(self) -> urllib.request.OpenerDirector:
        return urllib.request.build_opener(
            _NoRedirect, _plain_handler(self._lines.append), _secure_handler(self._lines.append)
        )

    def _hang_up(self) -> None:
        self.over = True
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


Watch = Callable[[socket.socket], None]


def _plain_handler(watch: Watch) -> urllib.request.HTTPHandler:
    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            watch(self.sock)

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, req)

    return Plain()


def _secure_handler(watch: Watch) -> urllib.request.HTTPSHandler:
    class Connection(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch(self.sock)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, req, context=ssl.create_default_context())

    return Secure()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key and the film's frames to another address."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class ChatCaptioner:
    """Asks one model of one server. Safe to use from several threads."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key: str = "",
        timeout: float = 180.0,
        retries: int = 4,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`timeout` in seconds for each whole answer, however it comes; `retries` = how often a busy or failing server
        is asked again, which is told to `say`. Raises `ConfigError` for a URL that is not http or https."""
        remedy = "write it like http://127.0.0.1:8000/v1"
        if not _usable(base_url):
            raise ConfigError("caption.base_url must be an http or https address without a password", remedy=remedy)
        if not model:
            raise ConfigError("caption.model is empty", remedy="set it to the name the server gives its model")
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model, self._key, self._timeout, self._retries = model, key, timeout, retries
        self._say = say
        self._refused: set[str] = set()

    def ask(self, pictures: Sequence[np.ndarray], turns: Sequence[str], *, tokens: int) -> str:
        """See `Captioner` in `cinetune.models.captioning.captioner`.

        Raises `ServiceError` when the server cannot be used at all, `ModelError` when it will not answer this question.
        """
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _jpeg(one)}} for one in pictures]
        messages: list[dict[str, Any]] = [{"role": "user", "content": [*content, {"type": "text", "text": turns[0]}]}]
        for number, turn in enumerate(turns[1:], start=1):
            messages.append({"role": ("user", "assistant")[number % 2], "content": turn})
        body = {"model": self._model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        waited = 0
        while True:
            status, headers, text = self._post({k: v for k, v in body.items() if k not in self._refused})
            if status == 200:
                return self._answer(text)
            refused = (
                [name for name in _OPTIONAL if name in text and name not in self._refused] if status == 400 else []
            )
            if refused:
                self._refused.update(refused)
                continue
            if status and status < 500 and status not in _PASSING:
                raise self._refusal(status, text)
            said = f"answers {status}: {text}" if status else text
            if waited == self._retries:
                raise ServiceError(
                    f"the captioning server {said} (asked {waited + 1} times)", where=self._url,
                    remedy="run `cinetune caption` again later: finished captions are kept",
                )  # fmt: skip
            pause = _pause(headers, waited)
            self._say(f"the captioning server {said}; asking again in {pause:g} s")
            time.sleep(pause)
            waited += 1

    def _post(self, body: Mapping[str, Any]) -> tuple[int, Message, str]:
        """(status, headers, text); status 0 for a connection that broke or took too long, the reason as text."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        status, back, data = 0, Message(), b""
        with _Deadline(self._timeout) as deadline:
            try:
                status, back, data = _exchange(deadline.opener(), request, self._timeout)
            except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                if isinstance(reason, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)):
                    raise ServiceError(
                        f"the captioning server cannot be reached: {reason}", where=self._url,
                        remedy="start the server, or set caption.base_url to where it is",
                    ) from error  # fmt: skip
                if not deadline.over and not isinstance(reason, TimeoutError):
                    return 0, Message(), self._plain(f"broke off: {reason or type(error).__name__}")
                deadline.over = True
            if deadline.over:
                return 0, Message(), f"gave no whole answer within {self._timeout:g} s"
        text = data.decode("utf-8", "replace")
        return status, back, text if status == 200 else self._plain(text)

    def _plain(self, text: str) -> str:
        """An error body in one short line, without the key should the server repeat it."""
        try:
            found = parse_json(text, where=self._url, refuse=ServiceError, halves=True)
            inner = found.get("error", found) if isinstance(found, dict) else found
            text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        except ServiceError:
            pass  # not JSON: a proxy's page, shown as it is
        text = " ".join(text.split())[:300]
        return text.replace(self._key, "***") if self._key else text

    def _refusal(self, status: int, text: str) -> ServiceError | ModelError:
        match status:
            case 401 | 403:
                what = f"the captioning server refuses the key ({status}: {text})" if self._key else text
                what = what if self._key else f"the captioning server wants a key ({status}: {text})"
                remedy = "set caption.key_env to the name of an environment variable that holds a valid key"
                return ServiceError(what, where=self._url, remedy=remedy)
            case 404:
                what = f"the captioning server has no such model or address ({status}: {text})"
                remedy = "check caption.model, and caption.base_url, which usually ends in /v1"
                return ServiceError(what, where=self._url, remedy=remedy)
            case _ if 300 <= status < 400:
                remedy = "set caption.base_url to the final address"
                return ServiceError(f"the captioning server redirects ({status})", where=self._url, remedy=remedy)
            case _:
                return ModelError(f"the captioning server refuses the question ({status}: {text})", where=self._url)

    def _answer(self, text: str) -> str:
        """The words in a completion. Raises `ServiceError` if it is none, `ModelError` if there are no words in it."""
        try:
            choice = parse_json(text, where=self._url, refuse=ServiceError, halves=True)["choices"][0]
            content = choice["message"]["content"]
            why = str(choice.get("finish_reason") or "no reason given")[:60]
        except (KeyError, IndexError, TypeError, AttributeError, ServiceError) as error:
            raise ServiceError(
                f"the captioning server answers, but not with a chat completion: {' '.join(text.split())[:200]!r}",
                where=self._url, remedy="set caption.base_url to an OpenAI-compatible address; it usually ends in /v1",
            ) from error  # fmt: skip
        if isinstance(content, list):
            content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not content.strip():
            raise ModelError(f"the model answered without words ({why})", where=self._url)
        return content


def _exchange(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, timeout: float
) -> tuple[int, Message, bytes]:
    """(status, headers, body) of any answer, good or bad. Raises what urllib and the connection raise."""
    try:
        answer = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status or 0, answer.headers, answer.read(_MOST_BYTES)


def _usable(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    clean = url.isascii() and url.isprintable() and " " not in url and port != 0
    return clean and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _pause(headers: Message, waited: int) -> float:
    """Seconds until the next try: what the server asks for, else 1, 2, 4 ... times `FIRST_WAIT`."""
    asked = headers.get("Retry-After") or ""
    return min(LONGEST_WAIT, float(asked) if asked.isdecimal() else FIRST_WAIT * 2**waited)


def _jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
