"""The server as an ASGI 3 application, without a framework: requests in, bytes of planned images out.

A body is read before its head is sent where it is short, so that both leave in one segment and a fault has its status.
Behind the head a fault can only cut the connection: what a client has is then too short, and never mixed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

from cosremaster.errors import CosremasterError, LayerError, UsageError
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.exchange import Exchange, RefusalError, Reply
from cosremaster.serve.heads import has_sound_host
from cosremaster.serve.metrics import METRICS_TYPE
from cosremaster.serve.overview import PAGE_TYPE, SiteRow, write_overview_page
from cosremaster.serve.paths import PathReader, ServedPath, hide_tokens, parse_path
from cosremaster.serve.ranges import Answer, ByteRange, Fields, answer_request, plain_answer
from cosremaster.serve.sites import ServedFile, ServedSite, SiteImages, find_boot_file
from cosremaster.serve.tokens import EVERYTHING, Access, Tokens

__all__ = ["ConnectionCutError", "ServeApp", "ServedPath", "hide_tokens", "parse_path"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

CHUNK = 256 << 10
"""Bytes of a body that are read and sent at a time."""
SLOW_READ = 0.005
"""Seconds from which on a read waited for a disk: the rest of the answer is read on another thread."""
PLANNERS = 2
"""Threads that plan. So many others look whether sources changed, so that no planned site waits for a plan."""
DIGESTERS = 1
"""Threads that read whole images for their digest, which takes long."""


class ConnectionCutError(Exception):
    """An answer cannot be completed: the server behind this application closes the connection."""


class ServeApp:
    """The application. ``title``: what the page of the sites is called; ``planners``: threads that plan."""

    def __init__(
        self, sites: SiteImages, log: AccessLog, tokens: Tokens, title: str = "Sites", planners: int = PLANNERS
    ) -> None:
        """Keep the arguments."""
        self._sites, self._log, self._tokens, self._title = sites, log, tokens, title
        self._paths = PathReader(tokens)
        self.metrics = sites.metrics
        self._planners = ThreadPoolExecutor(planners, thread_name_prefix="plan")
        self._checkers = ThreadPoolExecutor(PLANNERS, thread_name_prefix="check")
        self._digesters = ThreadPoolExecutor(DIGESTERS, thread_name_prefix="digest")
        self._pending: dict[tuple[str, str], asyncio.Future[Any]] = {}
        self._is_stopping = False
        self._logged_problems: tuple[str, ...] = ()
        self._logged_token_problem = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or follow the life of the server; other protocols are refused."""
        if scope["type"] == "http":
            fields = [(name.lower(), value) for name, value in scope["headers"]]
            client: str = (scope.get("client") or ("",))[0]
            exchange = self._begin_exchange(scope["method"], scope["path"], fields, client)
            exchange.is_malformed = not has_sound_host(fields, scope.get("http_version", ""))
            await self._serve_request(exchange, receive, send)
        elif scope["type"] == "lifespan":
            await self._follow_life(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    def answer_at_once(self, method: str, path: str, fields: Fields, client: str) -> Reply | None:
        """Return the answer to a GET or HEAD that ``client`` made with ``fields``, counted and logged.

        None, and nothing has happened, where it has to be waited for, or has a fault: a call of this application then
        answers it.
        """
        exchange = self._begin_exchange(method, path, fields, client)
        try:
            reply = self._reply_at_once(exchange)
        except Exception:  # the other way says which
            return None
        if reply is not None:
            exchange.status, exchange.sent = reply.status, len(reply.body)
            exchange.end(self.metrics, self._log)
        return reply

    def _begin_exchange(self, method: str, path: str, fields: Fields, client: str) -> Exchange:
        """Return the exchange for a request of ``client``, for which the tokens count that count now."""
        if self._tokens.renew():
            self._paths.forget()
        problem = self._tokens.problem
        if problem != self._logged_token_problem:
            self._logged_token_problem = problem
            if problem:
                self._log.add("fault", error=problem)
        target, shown = self._paths.read(path)
        return Exchange(method, target, shown, fields, client)

    def _reply_at_once(self, exchange: Exchange) -> Reply | None:
        """Return the answer to a request for few bytes of an image whose sources were looked at a moment ago.

        None if it is for something else. :raises CosremasterError: they cannot be read.
        """
        site = self._sites.fresh_site(exchange.target.site) if exchange.target.kind == "image" else None
        try:
            self._check(exchange, site)
        except RefusalError as refusal:
            return _make_reply(exchange, refusal.answer, _literal_body(refusal.answer))
        if site is None or site.image.is_slow:
            return None
        if self._sites.is_due(site) and not self._is_stopping:
            self._checkers.submit(self._sites.check_site, site.name)  # so that nobody has to wait for it later
        answer = answer_request(exchange.method, exchange.fields, site.image.representation, time.time())
        if exchange.method == "HEAD":
            return Reply(answer.status, answer.fields, b"")
        return _make_reply(exchange, answer, _read_body(answer, site.image)) if answer.length <= CHUNK else None

    async def _follow_life(self, receive: Receive, send: Send) -> None:
        """Answer the messages of start and stop."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def close(self) -> None:
        """Plan no more."""
        self._is_stopping = True
        for pool in (self._planners, self._checkers, self._digesters):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _serve_request(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Answer a request, count and log it."""
        self.metrics.in_progress += 1
        try:
            await self._answer(exchange, receive, send)
        except CosremasterError as error:
            await self._fail(exchange, send, 503, str(error))
        except (ConnectionCutError, asyncio.CancelledError):
            self.metrics.cut += 1
            exchange.error = exchange.error or "the connection was cut"
            raise
        except Exception as error:
            await self._fail(exchange, send, 500, f"{type(error).__name__}: {error}")
        finally:
            self.metrics.in_progress -= 1
            exchange.end(self.metrics, self._log)

    async def _fail(self, exchange: Exchange, send: Send, status: int, reason: str) -> None:
        """Answer with ``reason``. :raises ConnectionCutError: an answer has begun."""
        exchange.error = reason
        if exchange.is_begun:
            self.metrics.cut += 1
            raise ConnectionCutError(reason)
        text = reason if status == 503 else "the server has a fault; its log says more"
        answer = plain_answer(status, text, None, (b"retry-after", b"10"))
        await self._send_reply(exchange, send, _make_reply(exchange, answer, _literal_body(answer)))

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Answer a request. :raises CosremasterError: it cannot be, now."""
        reply = None
        with suppress(CosremasterError):  # what follows says which
            reply = self._reply_at_once(exchange)
        if reply is not None:
            await self._send_reply(exchange, send, reply)
            return
        try:
            access = self._check(exchange)
            if exchange.target.kind in ("image", "digest", "boot"):
                with ExitStack() as stack:
                    site = await self._use_site(exchange.target.site, stack)
                    try:
                        file = await self._find_file(site, exchange.target)
                        answer = answer_request(exchange.method, exchange.fields, file.representation, time.time())
                        await self._send_answer(exchange, receive, send, answer, file)
                    except CosremasterError:  # its bytes changed in a way that its files do not show
                        await self._drop(site)
                        raise
                return
            answer = self._own_page(exchange, access)
        except RefusalError as refusal:
            answer = refusal.answer
        await self._send_reply(exchange, send, _make_reply(exchange, answer, _literal_body(answer)))

    def _check(self, exchange: Exchange, site: ServedSite | None = None) -> Access:
        """Return what the client of a request may have; ``site`` is that of its path, where it is at hand.

        :raises RefusalError: it may not have what it asks for.
        """
        if exchange.is_malformed:
            reason = "a request of HTTP/1.1 has a Host field, a single one that names a host"
            raise RefusalError(plain_answer(400, reason, None, (b"connection", b"close")))
        if exchange.method not in ("GET", "HEAD"):
            extra = ((b"allow", b"GET, HEAD"), (b"connection", b"close"))
            raise RefusalError(plain_answer(405, "only GET and HEAD are answered", None, *extra))
        access = self._find_access(exchange)
        if site is None or not access.allows(site.name):
            exchange.target = self._find_target(exchange.target, access)
        if not exchange.target.kind:
            raise RefusalError(plain_answer(404, "there is nothing at this path"))
        return access

    def _find_target(self, target: ServedPath, access: Access) -> ServedPath:
        """Return what of ``target`` is there and open to ``access``; no kind is nothing."""
        if not target.site:
            return target
        for name in filter(None, (target.site, target.other_site)):
            if access.allows(name) and self._has_site(name):
                return target._replace(site=name)
        return ServedPath("")

    def _find_access(self, exchange: Exchange) -> Access:
        """Return what the token of a request opens. :raises RefusalError: it has none that counts."""
        target = exchange.target
        if target.kind == "health":
            return EVERYTHING
        if not self._tokens:
            if target.token is None:
                return EVERYTHING
            raise RefusalError(plain_answer(404, "there is nothing at this path"))
        token = target.token
        if token is None:
            scheme, _, word = (exchange.text_of(b"authorization") or "").partition(" ")
            if scheme.lower() != "bearer":
                extra = (b"www-authenticate", b'Bearer realm="cosremaster"')
                raise RefusalError(plain_answer(401, "a token is needed: /s/TOKEN/SITE.iso", None, extra))
            token = word.strip()
        access = self._tokens.find_access(token)
        if access is None:
            self.metrics.refused_tokens += 1
            raise RefusalError(plain_answer(404, "there is nothing at this path"))
        return access

    def _has_site(self, name: str) -> bool:
        """Return whether there is a site ``name``."""
        return self._sites.fresh_site(name) is not None or name in self._list_names()

    def _list_names(self) -> Collection[str]:
        """Return the names of all sites; what is no site, though it should be one, is logged once.

        :raises CosremasterError: they cannot be read.
        """
        catalog = self._sites.catalog
        names, problems = catalog.names(), catalog.problems
        for problem in problems:
            if problem not in self._logged_problems:
                self._log.add("fault", error=problem)
        self._logged_problems = problems
        return names

    async def _drop(self, site: ServedSite) -> None:
        """Drop ``site``, which cannot be read any more; on another thread, as closing its base may take a while."""
        if not self._is_stopping:
            await self._run_once(("drop", f"{id(site)}"), self._checkers, lambda: self._sites.drop(site))

    async def _use_site(self, name: str, stack: ExitStack) -> ServedSite:
        """Return the image of the site ``name``, which stays readable while ``stack`` is open.

        :raises CosremasterError: it cannot be planned.
        """
        while True:
            site = await self._find_site(name)
            with suppress(UsageError):  # others needed its place at this very moment
                stack.enter_context(site.using())
                return site

    async def _find_site(self, name: str) -> ServedSite:
        """Return the image of the site ``name``, planned on another thread if need be.

        :raises CosremasterError: it cannot be planned.
        """
        site = self._sites.fresh_site(name)
        if site is None and self._sites.known_site(name) is not None:
            site = await self._run_once(("check", name), self._checkers, lambda: self._sites.check_site(name))
        if site is None:
            site = await self._run_once(("site", name), self._planners, lambda: self._sites.find_site(name))
        return site

    async def _find_file(self, site: ServedSite, target: ServedPath) -> ServedFile:
        """Return what ``target`` means of ``site``. :raises RefusalError: nothing."""
        if target.kind == "image":
            return site.image
        try:
            if target.kind == "digest":
                pool, work, is_ready = self._digesters, site.digest_file, site.has_digest
            else:
                pool, work, is_ready = self._planners, lambda: find_boot_file(site, target.file), site.has_boot_files
            if is_ready:
                return work()
            key = f"{target.kind} {target.file}", f"{site.name} {site.image.representation.etag}"
            file: ServedFile = await self._run_once(key, pool, work)
            return file
        except (LayerError, UsageError) as error:
            raise RefusalError(plain_answer(404, error.message)) from error

    async def _run_once(self, key: tuple[str, str], pool: ThreadPoolExecutor, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns on a thread of ``pool``; all who ask for ``key`` meanwhile wait for one run."""
        future = self._pending.get(key)
        if future is None:
            future = asyncio.get_running_loop().run_in_executor(pool, work)
            self._pending[key] = future
            future.add_done_callback(lambda done: self._end_run(key, done))
        return await asyncio.shield(future)

    def _end_run(self, key: tuple[str, str], future: asyncio.Future[Any]) -> None:
        """Forget the run of ``key``, and its error if nobody waits for it any more."""
        del self._pending[key]
        if not future.cancelled():
            future.exception()

    def _own_page(self, exchange: Exchange, access: Access) -> Answer:
        """Return the answer with a page of the server's own."""
        kind = exchange.target.kind
        if kind == "health":
            return plain_answer(503, "stopping") if self._is_stopping else plain_answer(200, "ok")
        if kind == "metrics":
            data, media_type = self._format_metrics(), METRICS_TYPE
        else:
            names = [name for name in self._list_names() if access.allows(name)]
            problems = self._sites.catalog.problems if access.sites is None else ()
            data, media_type = write_overview_page(self._title, map(self._describe_site, names), problems), PAGE_TYPE
        fields = [
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(data)),
            (b"cache-control", b"no-store"),
        ]
        return Answer(200, fields, (data,), len(data))

    def _format_metrics(self) -> bytes:
        """Return the metrics."""
        sites = self._sites
        try:
            count, faults = len(self._list_names()), len(sites.catalog.problems)
        except CosremasterError:
            count, faults = 0, 1
        gauges = {
            "sites": ("Sites of the fleet.", count),
            "site_list_faults": ("Faults in the list of sites, by which some or all are not served.", faults),
            "token_file_faults": ("Faults of the file of tokens, in whose place those of before count.",
                                  int(bool(self._tokens.problem))),
        }  # fmt: skip
        return "".join(f"{line}\n" for line in self.metrics.lines(gauges)).encode()

    def _describe_site(self, name: str) -> SiteRow:
        """Return the row of the site ``name``."""
        site = self._sites.known_site(name)
        if site is None:
            return SiteRow(name, None, "")
        return SiteRow(name, site.image.representation.size, site.image.representation.etag)

    async def _send_reply(self, exchange: Exchange, send: Send, reply: Reply) -> None:
        """Send ``reply``."""
        exchange.is_begun, exchange.status = True, reply.status
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.fields})
        await send({"type": "http.response.body", "body": reply.body})
        exchange.sent = len(reply.body)

    async def _send_answer(
        self, exchange: Exchange, receive: Receive, send: Send, answer: Answer, file: ServedFile
    ) -> None:
        """Send ``answer``, whose ranges are those of ``file``."""
        if exchange.method == "HEAD" or not answer.body or (answer.length <= CHUNK and not file.is_slow):
            body = b"" if exchange.method == "HEAD" else _read_body(answer, file)
            await self._send_reply(exchange, send, Reply(answer.status, answer.fields, body))
            return
        steps = _cut_body(answer)
        loop, is_slow = asyncio.get_running_loop(), file.is_slow
        gone = asyncio.ensure_future(_wait_for_end(receive))
        try:
            for step in steps:
                begun = time.perf_counter()
                if isinstance(step, bytes):
                    data_of_step = step
                elif is_slow:
                    data_of_step = await loop.run_in_executor(None, file.read, step.start, step.end - step.start)
                else:
                    data_of_step = file.read(step.start, step.end - step.start)
                    is_slow = time.perf_counter() - begun > SLOW_READ
                if not exchange.is_begun:
                    exchange.is_begun, exchange.status = True, answer.status
                    await send({"type": "http.response.start", "status": answer.status, "headers": answer.fields})
                is_last = exchange.sent + len(data_of_step) == answer.length
                await send({"type": "http.response.body", "body": data_of_step, "more_body": not is_last})
                exchange.sent += len(data_of_step)
                if gone.done() and not is_last:
                    exchange.error = "the client closed the connection"
                    return
                await asyncio.sleep(0)  # the others' turn
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


def _make_reply(exchange: Exchange, answer: Answer, body: bytes) -> Reply:
    """Return ``answer`` with its ``body``, which a HEAD does not get."""
    return Reply(answer.status, answer.fields, body if exchange.method != "HEAD" else b"")


def _read_body(answer: Answer, file: ServedFile) -> bytes:
    """Return the body of ``answer``, whose ranges are those of ``file``."""
    if len(answer.body) == 1 and isinstance(answer.body[0], ByteRange):  # the usual case
        start, end = answer.body[0]
        return file.read(start, end - start)
    parts = [part if isinstance(part, bytes) else file.read(part.start, part.end - part.start) for part in answer.body]
    return b"".join(parts)


def _literal_body(answer: Answer) -> bytes:
    """Return the body of an answer that has no ranges."""
    return b"".join(part for part in answer.body if isinstance(part, bytes))


def _cut_body(answer: Answer) -> Iterator[bytes | ByteRange]:
    """Yield the parts of a body in steps that are not too long."""
    for part in answer.body:
        if isinstance(part, bytes):
            yield part
            continue
        for start in range(part.start, part.end, CHUNK):
            yield ByteRange(start, min(start + CHUNK, part.end))


async def _wait_for_end(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
