"""The WebSocket: hello, subscriptions with replay, heartbeat, expiry. See protocol.md."""

import asyncio
import json
import logging
import math
import time
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import calls, protocol
from .auth import COOKIE, Session, bearer, origin_allowed
from .delivery import send_stale
from .errors import Problem, from_database, unexpected
from .gateway import Gateway
from .hub import Subscriber
from .outlet import Outlet, text_frame
from .protocol import Malformed, encode

log = logging.getLogger("rowcast.socket")

PATH: Final = "/api/realtime/socket"


class Closed(Exception):
    """The socket has to be closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def endpoint(websocket: WebSocket) -> None:
    """Serves one socket from its handshake to its end."""
    gateway: Gateway = websocket.app.state.gateway
    await websocket.accept()
    outlet = Outlet(websocket.scope, websocket.send, gateway.settings.socket_buffer_bytes)
    gateway.outlets.add(outlet)
    connection = Connection(gateway, websocket, outlet)
    try:
        await connection.serve()
    except Closed as closed:
        outlet.close(closed.code, closed.reason)
        await outlet.closed()
    except WebSocketDisconnect:
        outlet.closing = True
    except Exception as exc:  # noqa: BLE001
        unexpected(exc)
        outlet.close(protocol.FAILED, "unexpected error")
        await outlet.closed()
    finally:
        connection.end()
        gateway.outlets.discard(outlet)


class Connection:
    """One socket's conversation. Frames are handled one after the other, in order."""

    __slots__ = (
        "_expiry",
        "_gateway",
        "_hub",
        "_outlet",
        "_session",
        "_subscriber",
        "_websocket",
    )

    def __init__(self, gateway: Gateway, websocket: WebSocket, outlet: Outlet) -> None:
        self._gateway = gateway
        self._hub = gateway.hub
        self._websocket = websocket
        self._outlet = outlet
        self._session: Session | None = None
        self._subscriber: Subscriber | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        """Runs until the peer leaves. Raises Closed or WebSocketDisconnect."""
        headers, settings = self._websocket.headers, self._gateway.settings
        if self._gateway.draining:
            raise Closed(protocol.GOING_AWAY, "the server is stopping")
        if "origin" in headers and not origin_allowed(headers, settings.allowed_origins):
            raise Closed(protocol.BAD_ORIGIN, "this origin is not allowed")
        session = await self._greet()
        subscriber = self._subscriber = self._hub.join(
            session.identity, session.claims, session.role, session.user_id, self._outlet.write
        )
        self._gateway.relay.wake()
        malformed = 0
        while True:
            text = await self._receive()
            try:
                frame = protocol.parse(text)
                malformed = 0
            except Malformed as bad:
                malformed += 1
                self._refuse("bad_frame", bad.message, bad.frame_id)
                if malformed >= protocol.MAX_MALFORMED:
                    raise Closed(protocol.BAD_FRAME, "too many malformed frames") from None
                continue
            await self._handle(subscriber, frame)

    def end(self) -> None:
        """Forgets the socket."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._subscriber is not None:
            self._hub.remove(self._subscriber)

    # --- hello and identity ----------------------------------------------------------------------

    async def _greet(self) -> Session:
        try:
            async with asyncio.timeout(protocol.HELLO_SECONDS):
                text = await self._receive()
        except TimeoutError:
            raise Closed(protocol.BAD_FRAME, "no hello") from None
        if len(text.encode("utf-8", "replace")) > protocol.MAX_HELLO_BYTES:
            raise Closed(protocol.BAD_FRAME, "hello is too long")
        try:
            hello = protocol.parse(text)
        except Malformed as bad:
            raise Closed(protocol.BAD_FRAME, bad.message) from None
        if not isinstance(hello, protocol.Hello):
            raise Closed(protocol.BAD_FRAME, "the first frame must be hello")
        if hello.protocol != protocol.VERSION:
            raise Closed(protocol.UPGRADE, "this protocol version is not spoken here")
        session = await self._identify(hello.token)
        relay = self._gateway.relay
        try:
            async with asyncio.timeout(protocol.HELLO_SECONDS):
                await relay.ready.wait()
        except TimeoutError:
            raise Closed(protocol.TRY_LATER, "the database cannot be reached") from None
        self._outlet.schema = protocol.schema_number(hello.schema_version)
        if self._gateway.outdated(self._outlet.schema):
            raise Closed(protocol.UPGRADE, protocol.OUTDATED)
        self._adopt(session)
        self._send(
            protocol.Welcome(
                epoch=relay.epoch or "",
                user_id=session.user_id,
                role=session.role,
                server_time=_iso(time.time()),
                heartbeat=self._gateway.settings.heartbeat_seconds,
                expires_at=_iso(session.expires_at),
                schema_version=relay.schema_version,
            )
        )
        return session

    async def _identify(self, token: str | None) -> Session:
        """By the token of the frame, else the Authorization header, else the cookie."""
        verifier, headers = self._gateway.verifier, self._websocket.headers
        try:
            presented = token or bearer(headers)
            if presented is None and (cookie := self._websocket.cookies.get(COOKIE)):
                # A cookie comes along from any page, so here the Origin has to be there.
                if not origin_allowed(headers, self._gateway.settings.allowed_origins):
                    raise Closed(protocol.BAD_ORIGIN, "this origin is not allowed")
                presented = cookie
            if presented is None:
                return verifier.anonymous()
            return await verifier.verify(presented)
        except Problem as problem:
            code = protocol.SIGN_IN if problem.status == 401 else protocol.TRY_LATER
            raise Closed(code, problem.detail) from None

    def _adopt(self, session: Session) -> None:
        """From now on this session counts; at its end the socket is closed."""
        self._session = session
        if self._expiry is not None:
            self._expiry.cancel()
        if session.expires_at is not None:
            seconds = max(0.0, session.expires_at - time.time())
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(min(seconds, 86400.0), self._expire)

    def _expire(self) -> None:
        session = self._session
        if session is not None and (session.expires_at or math.inf) > time.time():
            self._adopt(session)
            return
        self._outlet.close(protocol.SIGN_IN, "the token has expired")

    # --- frames ----------------------------------------------------------------------------------

    async def _handle(self, subscriber: Subscriber, frame: Any) -> None:
        match frame:
            case protocol.Subscribe():
                await self._subscribe(subscriber, frame)
            case protocol.Unsubscribe():
                self._hub.unsubscribe(subscriber, frame.keys)
                self._send(protocol.Unsubscribed(id=frame.id))
            case protocol.Ping():
                self._send(protocol.Pong(cursor=self._sealed(self._hub.cursor_of(subscriber))))
            case protocol.Auth():
                await self._renew(subscriber, frame.token)
            case protocol.Presence() | protocol.Broadcast():
                self._refuse("unsupported", f"{frame.type} is not offered by this server")
            case _:
                pass  # a type of a later version, or a second hello

    async def _renew(self, subscriber: Subscriber, token: str) -> None:
        session, old = await self._identify(token), self._session
        if old is None or session.user_id != old.user_id:
            raise Closed(protocol.SIGN_IN, "another user")
        self._adopt(session)
        same = session.rights == old.rights
        self._hub.renew(
            subscriber,
            session.identity,
            session.claims,
            session.role,
            session.user_id,
            keep_views=same,
        )
        self._send(protocol.Authed(expires_at=_iso(session.expires_at)))
        if not same and subscriber.keys:
            await self._see_anew(subscriber)

    async def _see_anew(self, subscriber: Subscriber) -> None:
        """With other claims he may see other rows: every key has to be read again.

        What is readable now is asked before he is told, so that of whatever he reads then he
        also hears the end, and of nothing else.
        """
        keys, reader = list(subscriber.keys), subscriber.reader
        self._hub.hold(subscriber)
        generation = reader.generation
        try:
            text = await calls.subscribe(self._gateway.database.work, reader.claims, keys, None)
        except psycopg.Error as exc:
            problem = from_database(exc)
            raise Closed(protocol.TRY_LATER, problem.detail or problem.code) from None
        asked = reader.generation == generation
        if asked:
            self._gateway.relay.rights.found(reader, json.loads(text)["views"])
        send_stale(subscriber, keys, "access", proven=asked)
        self._release(subscriber)

    async def _subscribe(self, subscriber: Subscriber, frame: protocol.Subscribe) -> None:
        """Registers first, then asks, then replays: a change is in the replay or comes after it.

        What the relay delivers meanwhile waits until `subscribed` is sent, and the socket stands
        at the cursor it had when it began: it never claims what it was not sent.
        """
        keys, errors = self._admit(subscriber, frame.keys)
        new = [key for key in keys if key not in subscriber.keys]
        cursor = self._sealed(self._hub.hold(subscriber)) or ""
        asked = frame.cursor
        if asked is not None:
            asked = self._gateway.cursors.open(asked) or calls.UNUSABLE_CURSOR
        self._hub.subscribe(subscriber, keys)
        reader, generation = subscriber.reader, subscriber.reader.generation
        try:
            text = await calls.subscribe(
                self._gateway.database.work,
                reader.claims,
                keys,
                asked,
                self._gateway.relay.rights.policies.opaque(reader.role),
            )
        except psycopg.Error as exc:
            self._hub.unsubscribe(subscriber, new)
            problem = from_database(exc)
            self._refuse(problem.code, problem.detail or "Not subscribed; try again", frame.id)
            self._release(subscriber)
            return
        answer = json.loads(text)
        refused = answer.get("errors") or []
        dropped = {error["key"] for error in refused}
        self._hub.unsubscribe(subscriber, [key for key in new if key in dropped])
        versions = answer.get("versions") or {}
        if reader.generation == generation:
            self._gateway.relay.rights.found(reader, answer.get("views") or {})
        # One group each: a replay may be cut anywhere, since no frame of it moves the cursor.
        replay = [[protocol.replayed_element(update)] for update in answer.get("updates") or ()]
        for payload in protocol.updates_frames(replay, cursor, cursor):
            await self._outlet.flow(text_frame(payload))
        subscribed = protocol.Subscribed(
            id=frame.id,
            cursor=cursor,
            versions=versions,
            stale=answer.get("stale") or None,
            errors=[*errors, *map(protocol.KeyRefusal.model_validate, refused)] or None,
        )
        self._send(subscribed)
        self._release(subscriber)
        if reader.generation != generation:
            # His rights may have changed between the answer and now.
            send_stale(subscriber, keys, "access")

    def _release(self, subscriber: Subscriber) -> None:
        if not self._hub.release(subscriber):
            send_stale(subscriber, list(subscriber.keys), "behind")

    def _admit(
        self, subscriber: Subscriber, asked: list[str]
    ) -> tuple[list[str], list[protocol.KeyRefusal]]:
        """The keys that may be asked for, each once, and the refusals of the others."""
        keys: list[str] = []
        errors: list[protocol.KeyRefusal] = []
        room = protocol.MAX_KEYS - len(subscriber.keys)
        for key in dict.fromkeys(asked):
            if not protocol.usable_key(key):
                shown = key.encode("utf-8", "replace").decode()[: protocol.MAX_KEY_BYTES]
                errors.append(protocol.KeyRefusal(key=shown, code="bad_key"))
            elif key in subscriber.keys:
                keys.append(key)
            elif room > 0:
                room -= 1
                keys.append(key)
            else:
                errors.append(protocol.KeyRefusal(key=key, code="too_many_keys"))
        return keys, errors

    def _sealed(self, cursor: str | None) -> str | None:
        return cursor and self._gateway.cursors.seal(cursor)

    # --- in and out ------------------------------------------------------------------------------

    async def _receive(self) -> str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            return ""  # binary: malformed like anything else that is not JSON
        if len(text) > protocol.MAX_FRAME_IN_BYTES:
            raise Closed(protocol.BAD_FRAME, "the frame is too long")
        return str(text)

    def _send(self, frame: protocol.Model) -> None:
        self._outlet.write(text_frame(encode(frame)))

    def _refuse(self, code: str, message: str, frame_id: str | int | None = None) -> None:
        self._send(protocol.ErrorFrame(code=code, message=message, id=frame_id))


def _iso(seconds: float | None) -> str | None:
    """Unix time as UTC ISO 8601 with milliseconds."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
