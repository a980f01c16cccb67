"""Heads of HTTP requests of all kinds: plain ones, and those that servers read in different ways."""

from __future__ import annotations

from functools import partial


def make_head(line: str, *fields: str | bytes) -> bytes:
    """A head."""
    lines = [each if isinstance(each, bytes) else each.encode() for each in (line, *fields, "", "")]
    return b"\r\n".join(lines)


def make_requests(etag: str, modified: str, size: int, chunk: int, token: str) -> list[bytes]:
    """Heads for the image `/site-0.iso` of ``size`` bytes; ``chunk``: how many of them are answered at once."""
    get = partial(make_head, "GET /site-0.iso HTTP/1.1", "Host: a:80")
    line = partial(make_head)
    ranges = [
        "0-0",
        "5-9,20-30",
        "0-99999",
        "7-",
        "-5",
        f"{size - 1}-",
        f"{size}-",
        f"0-{chunk - 1}",
        f"0-{chunk}",
        "9-5",
        "u-u",
        "",
        "0-1," * 40,
        "00000-00009",
        "9" * 40 + "-",
        " 1-2",
        "1-2 ",
        "1-2\t",
        "1-2,",
        f"5-{size * 2}",
    ]
    conditions = [
        f'If-Range: "{etag}"',
        'If-Range: "x"',
        f"If-Range: {modified}",
        f'If-Match: "{etag}"',
        'If-Match: "x"',
        "If-Match: *",
        f'If-None-Match: "{etag}"',
        f'If-None-Match: W/"{etag}", "x"',
        f"If-Modified-Since: {modified}",
        f"If-Unmodified-Since: {modified}",
        "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-Range: ",
    ]
    others: list[str | bytes] = [
        "Connection: keep-alive",
        "connection: Keep-Alive",
        "Connection: close",
        "Connection: keep-alive, close",
        "Connection: x",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Upgrade: h2c",
        "Proxy-Connection: close",
        "Keep-Alive: timeout=5",
        "Content-Length: 0",
        "Content-Length: 3\r\n\r\nabc",
        "Content-Length: x",
        "Content-Length: 0\r\nContent-Length: 0",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n",
        "Transfer-Encoding: x",
        "Expect: 100-continue",
        "Expect: x",
        "TE: trailers",
        "Range: bytes=0-5\r\nRange: bytes=7-9",
        "X:",
        "X: ",
        "X:  a",
        "X:a",
        "X: a ",
        "X: a\r\n b",
        "X : a",
        ": a",
        "X",
        "X_y: 1",
        "X: \x00",
        "X: ä",
        b"X: \xff",
        "X: a\nY: b",
        "\nX: a",
        'User-Agent: curl/8 "\\ (x)',
        "User-Agent: a\r\nUser-Agent: b",
        "X: " + "a" * 3900,
        "X: " + "a" * 5000,
        f"Authorization: Bearer {token}",
        "Authorization: Bearer wrong",
        "Host: b",
        "Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: python-requests/2",
    ]
    paths = [
        "/site-1.iso",
        "//site-1.iso",
        "/site%2D1.iso",
        "/site-1.iso?a=b",
        "/site-1.iso#a",
        "/gone.iso",
        "/",
        "/healthz",
        "*",
        "/site-1.iso.sha256",
        "/site-1.iso/",
        "/./site-1.iso",
        "/site-1/vmlinuz",
        "/site-1/gone",
        "http://a/site-1.iso",
        "",
        "/s/x/site-1.iso",
        "/S/x/site-1.iso",
        "/" + "a" * 400,
        "/ä.iso",
        "/site-1.iso;x",
        "/~a/b_c",
        "site-1.iso",
        "/a/../b",
    ]
    lines = [
        "GET /site-0.iso HTTP/1.0",
        "GET /site-0.iso HTTP/1.2",
        "GET /site-0.iso HTTP/2.0",
        "GET /site-0.iso",
        "get /site-0.iso HTTP/1.1",
        "POST /site-0.iso HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET  /site-0.iso HTTP/1.1",
        "GET\t/site-0.iso HTTP/1.1",
        "GET /site-0.iso HTTP/1.1 ",
        "\r\nGET /site-0.iso HTTP/1.1",
        "HEAD /site-0.iso HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "GET /site-0.iso http/1.1",
        "PRI * HTTP/2.0",
        "\x16\x03\x01",
    ]
    return [
        *(get(f"Range: bytes={each}") for each in ranges),
        *(get("Range: bytes=0-9", each) for each in conditions),
        *(get(each) for each in conditions),
        *(get("Range: bytes=0-9", each) for each in others),
        *(get(each, "range: bytes=3-9") for each in others),
        *(
            line(f"{method} {path} HTTP/1.1", "Host: a", "Range: bytes=0-9")
            for path in paths
            for method in ("GET", "HEAD")
        ),
        *(line(each, "Host: a", "Range: bytes=0-9") for each in lines),
        line("GET /site-0.iso HTTP/1.0", "Connection: keep-alive"),
        line("GET /site-0.iso HTTP/1.1"),
        line("GET /site-0.iso HTTP/1.1", "Host: a", "Range: items=0-5"),
        get(),
        b"\r\n\r\n",
        b"GET",
        *(
            line(f"GET /s/{word}/site-0.iso HTTP/1.1", "Host: a", "Range: bytes=0-9")
            for word in (token, f"{token}0", "x")
        ),
    ]
