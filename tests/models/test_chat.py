"""The HTTP back end against a real server in a process of its own."""

from __future__ import annotations

import base64
import io
import json
import socket

import numpy as np
import pytest
from PIL import Image

from caption_server import serve
from cinetune.errors import ConfigError, ModelError, ServiceError
from cinetune.models.captioning import chat
from cinetune.models.captioning.chat import ChatCaptioner

PICTURES = [np.full((24, 40, 3), level, np.uint8) for level in (40, 200)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, and no proxy between the test and its server."""
    monkeypatch.setattr(chat, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "*")


def test_the_request_is_what_an_openai_compatible_server_expects(tmp_path):
    with serve(tmp_path, [{"caption": "a barn"}], key="s3cret") as server:
        asked = ChatCaptioner(server.url + "/", "eye-7b", key="s3cret")
        assert asked.ask(PICTURES, ["look", "a shed", "no, look again"], tokens=99) == "a barn"
        (request,) = server.requests()
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == "Bearer s3cret"
    body = request["body"]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("eye-7b", 99, 0)
    first, second, third = body["messages"]
    assert (second, third) == (
        {"role": "assistant", "content": "a shed"},
        {"role": "user", "content": "no, look again"},
    )
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    for part, picture in zip(first["content"][:2], PICTURES, strict=True):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "JPEG"
            assert np.abs(np.asarray(image, int) - picture).max() <= 2


def test_a_busy_server_is_asked_again(tmp_path):
    steps = [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 500, "text": "boom"},
        {"close": True},
        {"caption": "a barn"},
    ]
    with serve(tmp_path, steps) as server:
        assert ChatCaptioner(server.url, "m", retries=3).ask(PICTURES, ["look"], tokens=9) == "a barn"
        requests = server.requests()
    assert len(requests) == 4
    assert all(request["body"] == requests[0]["body"] for request in requests)
    assert "authorization" not in requests[0]["headers"]


def test_waits_grow_and_what_the_server_asks_for_is_kept(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(chat.time, "sleep", slept.append)
    monkeypatch.setattr(chat, "FIRST_WAIT", 1.0)
    steps = [{"status": 503}, {"status": 502}, {"status": 429, "headers": {"Retry-After": "7"}}, {"status": 500}]
    steps += [{"status": 429, "headers": {"retry-after": "86400"}}, {"caption": "x"}]
    with serve(tmp_path, steps) as server:
        ChatCaptioner(server.url, "m", retries=5).ask(PICTURES, ["look"], tokens=9)
    assert slept == [1.0, 2.0, 7.0, 8.0, 60.0]


def test_a_server_that_stays_down_is_given_up(tmp_path):
    with serve(tmp_path, [{"status": 503, "text": '{"error": {"message": "model is loading"}}'}]) as server:
        with pytest.raises(ServiceError, match=r"answers 503: model is loading \(asked 3 times\)") as caught:
            ChatCaptioner(server.url, "m", retries=2).ask(PICTURES, ["look"], tokens=9)
        assert len(server.requests()) == 3
    assert caught.value.exit_code == 3
    assert "kept" in caught.value.remedy


def test_a_server_that_hangs_is_given_up(tmp_path):
    with (
        serve(tmp_path, [{"delay": 30, "caption": "late"}]) as server,
        pytest.raises(ServiceError, match=r"no whole answer within 0.3 s \(asked 2 times\)"),
    ):
        ChatCaptioner(server.url, "m", timeout=0.3, retries=1).ask(PICTURES, ["look"], tokens=9)


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize(
    "how", [{"drip": [0.05, "head"]}, {"drip": [0.05, "body"]}, {"stall": 10}, {"stall": 60}], ids=str
)
def test_a_server_that_drips_or_stalls_is_given_up_and_that_is_said(tmp_path, status, how):
    """The limit is for the whole answer, wherever it stops: each byte by itself comes in time."""
    said: list[str] = []
    with (
        serve(tmp_path, [{"status": status, **how}]) as server,
        pytest.raises(ServiceError, match=r"no whole answer within 0.5 s \(asked 2 times\)"),
    ):
        ChatCaptioner(server.url, "m", timeout=0.5, retries=1, say=said.append).ask(PICTURES, ["look"], tokens=9)
    assert said == ["the captioning server gave no whole answer within 0.5 s; asking again in 0.01 s"]


def test_a_refused_connection_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        ChatCaptioner(f"http://127.0.0.1:{port}/v1", "m").ask(PICTURES, ["look"], tokens=9)
    assert str(port) in caught.value.where
    assert "caption.base_url" in caught.value.remedy


@pytest.mark.parametrize("key", ["wr0ng-key", ""])
def test_a_bad_key_is_told_without_showing_it(tmp_path, key):
    with serve(tmp_path, [{"caption": "x"}], key="s3cret") as server:
        with pytest.raises(ServiceError, match="401") as caught:
            ChatCaptioner(server.url, "m", key=key).ask(PICTURES, ["look"], tokens=9)
        assert len(server.requests()) == 1
    assert "caption.key_env" in caught.value.remedy
    assert ("refuses the key" if key else "wants a key") in caught.value.what
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("<html>welcome</html>", ServiceError, "<html>welcome"),
        ('{"result": "a barn"}', ServiceError, "not with a chat completion"),
        ('{"choices": []}', ServiceError, "not with a chat completion"),
        ("[1, 2]", ServiceError, "not with a chat completion"),
        ('{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}', ModelError, "length"),
        ('{"choices": [{"message": {"content": "  "}}]}', ModelError, "no reason given"),
    ],
)
def test_an_answer_that_is_not_what_was_promised(tmp_path, text, error, said):
    with serve(tmp_path, [{"text": text}]) as server, pytest.raises(error, match=said):
        ChatCaptioner(server.url, "m").ask(PICTURES, ["look"], tokens=9)


def test_words_in_parts_are_joined(tmp_path):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "barn"}]
    with serve(tmp_path, [{"text": json.dumps({"choices": [{"message": {"content": parts}}]})}]) as server:
        assert ChatCaptioner(server.url, "m").ask(PICTURES, ["look"], tokens=9) == "a barn"


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, ServiceError, "no such model or address"),
        (302, ServiceError, "redirects"),
        (413, ModelError, "413: too big"),
    ],
)
def test_other_refusals(tmp_path, status, error, said):
    step = {"status": status, "text": "too big", "headers": {"Location": "http://127.0.0.1:1/"}}
    with serve(tmp_path, [step]) as server:
        with pytest.raises(error, match=said):
            ChatCaptioner(server.url, "m", key="k").ask(PICTURES, ["look"], tokens=9)
        assert len(server.requests()) == 1


def test_a_setting_the_server_refuses_is_left_out(tmp_path):
    refusal = {"status": 400, "text": '{"error": {"message": "Unsupported parameter: \'max_tokens\'"}}'}
    with serve(tmp_path, [refusal, {"caption": "a barn"}]) as server:
        captioner = ChatCaptioner(server.url, "m")
        assert [captioner.ask(PICTURES, ["look"], tokens=9) for _ in range(2)] == ["a barn"] * 2
        assert [sorted(request["body"]) for request in server.requests()] == [
            ["max_tokens", "messages", "model", "temperature"],
            ["messages", "model", "temperature"],
            ["messages", "model", "temperature"],
        ]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "127.0.0.1:8000", "http://", "http://me:pw@host/v1", "http://host:port/v1", "http://a b/"],
)
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(ConfigError, match=r"caption.base_url must be"):
        ChatCaptioner(url, "m")


def test_a_model_name_is_needed():
    with pytest.raises(ConfigError, match=r"caption.model is empty"):
        ChatCaptioner("http://127.0.0.1:8000/v1", "")
