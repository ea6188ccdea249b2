from __future__ import annotations

import io
import socket
from contextlib import closing

import pytest

from ollamactl.errors import ApiError, BadAnswer, CannotConnect, ConnectionLost, CtlError
from ollamactl.host import HostUrl, parse_host
from ollamactl.http import LINE_BYTES_MAX, Client, open_chunks
from tests.unit.ollamactl.fakedaemon import Answer, FakeDaemon, ok, refused, stream


def a_client(daemon: FakeDaemon) -> Client:
    return Client(parse_host(daemon.url))


def test_a_closed_port_says_how_to_start_the_daemon() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # Bound and not listening: every connection is refused.
        port = unused.getsockname()[1]
        with Client(HostUrl(port=port)) as client, pytest.raises(CannotConnect) as caught:
            client.probe()

    assert str(caught.value) == (
        f"could not connect to ollamad at http://127.0.0.1:{port}, "
        "run 'ollamad serve' (or 'ollamactl serve') to start it"
    )


def test_a_refusal_carries_the_daemons_words_and_the_status(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", refused(503, "server busy"))
    with a_client(daemon) as client, pytest.raises(ApiError) as caught:
        client.get("/api/tags")

    assert str(caught.value) == "server busy"
    assert caught.value.with_status == "503 Service Unavailable: server busy"


def test_a_refusal_that_is_no_json_is_shown_as_it_is(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", Answer(status=502, body=b"<h1>bad gateway</h1>"))
    with a_client(daemon) as client, pytest.raises(ApiError, match="<h1>bad gateway</h1>"):
        client.get("/api/tags")


def test_a_refusal_without_words_shows_its_status(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", Answer(status=500))
    with a_client(daemon) as client, pytest.raises(ApiError, match="500 Internal Server Error"):
        client.get("/api/tags")


@pytest.mark.parametrize("body", [b"", b"hello", b"[1]", b"[" * 100_000, b'{"a":' * 100_000])
def test_an_answer_that_is_no_object_is_a_bad_answer(daemon: FakeDaemon, body: bytes) -> None:
    daemon.on("GET", "/api/tags", Answer(body=body))
    with a_client(daemon) as client, pytest.raises(BadAnswer, match="is this ollamad"):
        client.get("/api/tags")


def test_a_redirect_is_not_followed(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/api/tags", Answer(status=301))
    with a_client(daemon) as client, pytest.raises(ApiError, match="301"):
        client.get("/api/tags")


def test_a_stream_is_read_across_chunk_borders(daemon: FakeDaemon) -> None:
    pieces = (b'{"a":', b'1}\n{"a":2}\n\n{"a"', b":3}")
    daemon.on("POST", "/x", Answer(lines=pieces))
    with a_client(daemon) as client:
        assert [piece["a"] for piece in client.stream("/x", {})] == [1, 2, 3]


def test_an_error_inside_a_stream_is_raised_after_what_came_before(daemon: FakeDaemon) -> None:
    daemon.on("POST", "/x", stream({"a": 1}, {"error": "the runner crashed"}))
    with a_client(daemon) as client:
        pieces = client.stream("/x", {})
        assert next(pieces) == {"a": 1}
        with pytest.raises(ApiError, match="the runner crashed") as caught:
            next(pieces)

    assert caught.value.with_status == "the runner crashed"


def test_a_line_that_is_no_json_is_the_error(daemon: FakeDaemon) -> None:
    daemon.on("POST", "/x", Answer(lines=(b"upstream died\n",)))
    with a_client(daemon) as client, pytest.raises(ApiError, match="upstream died"):
        list(client.stream("/x", {}))


def test_a_connection_cut_inside_a_stream_is_told(daemon: FakeDaemon) -> None:
    daemon.on("POST", "/x", stream({"a": 1}, is_cut=True))
    with a_client(daemon) as client, pytest.raises(ConnectionLost, match="was lost"):
        list(client.stream("/x", {}))


def test_a_line_beyond_the_limit_is_refused(daemon: FakeDaemon) -> None:
    daemon.on("POST", "/x", Answer(lines=(b"x" * (LINE_BYTES_MAX + 1),)))
    with a_client(daemon) as client, pytest.raises(BadAnswer, match=str(LINE_BYTES_MAX)):
        list(client.stream("/x", {}))


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    daemon.on("GET", "/api/version", ok({"version": "1"}))
    with a_client(daemon) as client:
        assert client.get("/api/version") == {"version": "1"}


def test_a_path_in_the_address_comes_before_every_route(daemon: FakeDaemon) -> None:
    daemon.on("GET", "/behind/proxy/api/version", ok({"version": "1"}))
    with Client(parse_host(f"{daemon.url}/behind/proxy/")) as client:
        assert client.get("/api/version") == {"version": "1"}


def test_an_argument_that_is_no_utf8_is_sent_readably(daemon: FakeDaemon) -> None:
    daemon.on("POST", "/x", ok({}))
    with a_client(daemon) as client:
        client.ask("POST", "/x", {"prompt": "caf\udce9"}, read_timeout_s=5)

    assert daemon.requests[0].json == {"prompt": "caf?"}


def test_a_blob_is_asked_for_and_sent_with_its_length(daemon: FakeDaemon) -> None:
    daemon.on("POST", "/api/blobs/sha256:1", Answer(status=201))
    with a_client(daemon) as client:
        assert not client.has_blob("sha256:1")
        client.upload("sha256:1", iter([b"ab", b"c"]), size_bytes=3)

    assert daemon.requests[1].body == b"abc"
    assert daemon.requests[1].headers["Content-Length"] == "3"


def test_a_file_that_shrinks_under_the_upload_ends_it() -> None:
    file = io.BytesIO(b"abc")
    file.name = "model.gguf"

    with pytest.raises(CtlError, match=r"model\.gguf became shorter"):
        list(open_chunks(file, 4))
