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
from .cursors import covers
from .delivery import send_stale
from .errors import Problem, from_database, unexpected
from .gateway import Gateway
from .hub import Subscriber, is_record_key
from .limits import FULL_SECONDS, Places, address_of, subscriber_of
from .outlet import Outlet, text_frame
from .presence import Peer, Refused
from .protocol import Malformed, encode

log = logging.getLogger("rowcast.socket")

FRAMES_A_TURN: Final = 64
RENEWALS: Final = 10
RENEWALS_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 5.0

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
    async with gateway.greeting:
        await websocket.accept()
    outlet = Outlet(websocket.scope, websocket.send, gateway.settings.socket_buffer_bytes)
    gateway.outlets.add(outlet)
    connection = Connection(gateway, websocket, outlet)
    try:
        await connection.serve()
        # It ends by itself where somebody else closes the socket, who may not have said so yet.
        await outlet.closed()
    except Closed as closed:
        outlet.close(closed.code, closed.reason)
        await outlet.closed()
    except WebSocketDisconnect:
        outlet.gone()
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
        "_address",
        "_expiry",
        "_gateway",
        "_hub",
        "_outlet",
        "_peer",
        "_places",
        "_renewals",
        "_session",
        "_subscriber",
        "_unsettled_until",
        "_websocket",
    )

    def __init__(self, gateway: Gateway, websocket: WebSocket, outlet: Outlet) -> None:
        self._gateway = gateway
        self._hub = gateway.hub
        self._unsettled_until = 0.0
        self._websocket = websocket
        self._outlet = outlet
        self._session: Session | None = None
        self._subscriber: Subscriber | None = None
        self._peer: Peer | None = None
        self._address = address_of(websocket.client.host if websocket.client is not None else None)
        self._places: list[tuple[Places, str]] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._renewals: list[float] = []

    async def serve(self) -> None:
        """Runs until the peer leaves. Raises Closed or WebSocketDisconnect."""
        headers, settings = self._websocket.headers, self._gateway.settings
        if self._gateway.draining:
            raise Closed(protocol.GOING_AWAY, self._gateway.farewell(1))
        if "origin" in headers and not origin_allowed(headers, settings.origins):
            raise Closed(protocol.BAD_ORIGIN, "this origin is not allowed")
        self._take_place(self._gateway.limits.address_sockets, self._address)
        subscriber, session = await self._greet()
        # Nobody reads them again, and they are a twentieth of what an idle socket costs.
        self._websocket.scope["headers"].clear()
        self._peer = self._gateway.signals.join(subscriber, session)
        self._gateway.relay.wake()
        malformed = frames = 0
        while not self._outlet.closing:
            text = await self._receive()
            frames += 1
            if frames % FRAMES_A_TURN == 0:
                # What has come already is handed out without a pause: others want their turn, too.
                await asyncio.sleep(0)
            try:
                frame = protocol.parse(text)
                malformed = 0
            except Malformed as bad:
                malformed += 1
                self._refuse("bad_frame", bad.message, bad.frame_id)
                if malformed >= protocol.MAX_MALFORMED:
                    raise Closed(protocol.BAD_FRAME, "too many malformed frames") from None
                continue
            await self._handle(subscriber, self._peer, frame)
            del text, frame  # while it waits for the next one

    def end(self) -> None:
        """Forgets the socket."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._peer is not None:
            self._gateway.signals.leave(self._peer)
        if self._subscriber is not None:
            self._hub.remove(self._subscriber)
        while self._places:
            places, name = self._places.pop()
            places.leave(name)

    def _take_place(self, places: Places, name: str) -> None:
        if not places.enter(name):
            raise Closed(protocol.RATE, protocol.later("too many sockets", FULL_SECONDS))
        self._places.append((places, name))

    # --- hello and identity ----------------------------------------------------------------------

    async def _greet(self) -> tuple[Subscriber, Session]:
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
        relay = self._gateway.relay
        try:
            async with asyncio.timeout(protocol.HELLO_SECONDS), self._gateway.greeting:
                session = await self._identify(hello.token)
                await relay.ready.wait()
        except TimeoutError:
            raise Closed(protocol.TRY_LATER, "the database cannot be reached") from None
        self._outlet.schema = protocol.schema_number(hello.schema_version)
        if self._gateway.outdated(self._outlet.schema):
            raise Closed(protocol.UPGRADE, protocol.OUTDATED)
        if session.user_id is not None:
            self._take_place(self._gateway.limits.user_sockets, session.user_id)
        self._adopt(session)
        # Joined before it is asked whether the session counts: if it ends after that was answered,
        # the relay finds the socket.
        subscriber = self._subscriber = self._hub.join(
            session.identity,
            session.claims,
            session.role,
            session.user_id,
            self._outlet.write,
            self._end_session,
        )
        outlet = self._outlet
        outlet.on_wire = lambda: self._hub.connect(subscriber, outlet.wire)
        outlet.on_wire()
        await self._check(session)
        self._send(
            protocol.Welcome(
                epoch=relay.epoch or "",
                user_id=session.user_id,
                role=session.role,
                rights=session.rights,
                server_time=_iso(time.time()),
                heartbeat=self._gateway.settings.heartbeat_seconds,
                expires_at=_iso(session.expires_at),
                schema_version=relay.schema_version,
            )
        )
        subscriber.greeted = True
        return subscriber, session

    async def _check(self, session: Session) -> None:
        """Whether the session still counts is for PostgreSQL to say, whatever the token says."""
        if session.claims is None:
            return
        if not self._gateway.verifier.holds(session.key):  # its key has gone since it was verified
            raise Closed(protocol.SIGN_IN, protocol.SESSION_ENDED)
        try:
            (counts,) = await calls.sessions(self._gateway.database.work, [session.claims])
        except psycopg.Error:
            raise Closed(protocol.TRY_LATER, "the database cannot be reached") from None
        if not counts:
            raise Closed(protocol.SIGN_IN, protocol.SESSION_ENDED)

    def _end_session(self) -> None:
        self._outlet.close(protocol.SIGN_IN, protocol.SESSION_ENDED)

    async def _identify(self, token: str | None) -> Session:
        """By the token of the frame, else the Authorization header, else the cookie."""
        verifier, headers = self._gateway.verifier, self._websocket.headers
        try:
            presented = token or bearer(headers)
            if presented is None and (cookie := self._websocket.cookies.get(COOKIE)):
                # A cookie comes along from any page, so here the Origin has to be there.
                if not origin_allowed(headers, self._gateway.settings.origins):
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
        self._outlet.key = session.key
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

    async def _handle(self, subscriber: Subscriber, peer: Peer, frame: Any) -> None:
        signals = self._gateway.signals
        match frame:
            case protocol.Subscribe():
                self._count_subscription()
                await self._subscribe(subscriber, frame)
                signals.subscribed(peer, frame.keys)
            case protocol.Unsubscribe():
                signals.unsubscribed(peer, frame.keys)
                self._hub.unsubscribe(subscriber, frame.keys)
                self._send(protocol.Unsubscribed(id=frame.id))
            case protocol.Ping():
                self._send(protocol.Pong(cursor=self._sealed(self._hub.cursor_of(subscriber))))
            case protocol.Auth():
                self._count_renewal()
                await self._renew(subscriber, peer, frame.token)
            case protocol.Presence() | protocol.Broadcast():
                try:
                    signals.handle(peer, frame)
                except Refused as refused:
                    self._refuse(refused.code, refused.message)
            case _:
                pass  # a type of a later version, or a second hello

    def _count_renewal(self) -> None:
        """A token lasts minutes; each new one makes all that is known of its reader unknown."""
        now = time.monotonic()
        self._renewals = [at for at in self._renewals if now - at < RENEWALS_SECONDS]
        if len(self._renewals) >= RENEWALS:
            raise Closed(protocol.RATE, protocol.later("too many renewals", RENEWALS_SECONDS))
        self._renewals.append(now)

    def _count_subscription(self) -> None:
        user_id = self._session.user_id if self._session is not None else None
        name = subscriber_of(user_id, self._address)
        if wait := self._gateway.limits.user_subscriptions.take(name, time.monotonic()):
            raise Closed(protocol.RATE, protocol.later("too many subscriptions", wait))

    async def _renew(self, subscriber: Subscriber, peer: Peer, token: str) -> None:
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
        await self._check(session)
        self._gateway.signals.renew(peer, session)
        self._send(protocol.Authed(rights=session.rights, expires_at=_iso(session.expires_at)))
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
            async with self._gateway.database.joins:
                text = await calls.subscribe(self._gateway.database.work, reader.claims, keys, None)
        except psycopg.Error as exc:
            problem = from_database(exc)
            code = protocol.SIGN_IN if problem.status == 401 else protocol.TRY_LATER
            raise Closed(code, problem.detail or problem.code) from None
        asked = reader.generation == generation
        if asked:
            self._gateway.relay.rights.found(subscriber, json.loads(text)["views"])
        send_stale(subscriber, keys, "access", proven=asked)
        self._release(subscriber)

    async def _subscribe(self, subscriber: Subscriber, frame: protocol.Subscribe) -> None:
        """Registers first, then asks, then replays: a change is in the replay or comes after it.
        Of keys that were registered before the cursor there is nothing to replay.

        What the relay delivers meanwhile waits until `subscribed` is sent, and the socket stands
        at the cursor it had when it began: it never claims what it was not sent.
        """
        keys, errors = self._admit(subscriber, frame.keys)
        new = [key for key in keys if key not in subscriber.keys]
        database, relay = self._gateway.database, self._gateway.relay
        asked = frame.cursor
        if asked is not None:
            asked = self._gateway.cursors.open(asked) or calls.UNUSABLE_CURSOR
            joined = subscriber.keys
            if keys and all((since := joined.get(key)) and covers(asked, since) for key in keys):
                await self._join_again(subscriber, frame, keys, errors, asked)
                return
        reader = subscriber.reader
        try:
            async with database.joins:
                cursor = self._sealed(self._hub.hold(subscriber)) or ""
                self._hub.subscribe(subscriber, keys)
                generation = reader.generation
                text = await calls.subscribe(
                    database.work,
                    reader.claims,
                    keys,
                    asked,
                    relay.rights.policies.opaque(reader.role),
                )
        except psycopg.Error as exc:
            self._hub.unsubscribe(subscriber, new)
            self._refuse_join(exc, frame.id)
            self._release(subscriber)
            return
        answer = protocol.loads(text)
        refused = answer.get("errors") or []
        dropped = {error["key"] for error in refused}
        self._hub.unsubscribe(subscriber, [key for key in new if key in dropped])
        versions = answer.get("versions") or {}
        if reader.generation == generation:
            relay.rights.found(subscriber, answer.get("views") or {})
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

    async def _join_again(
        self,
        subscriber: Subscriber,
        frame: protocol.Subscribe,
        keys: list[str],
        errors: list[protocol.KeyRefusal],
        cursor: str,
    ) -> None:
        """Keys he had joined before this cursor and has read since: whatever came after it was
        sent, but for what was thought not to concern him. Which of them he has to read once more
        is known when the changes around his read were told. Frames behind this one wait, so that a
        relay which cannot read is not waited for by each.
        """
        gateway = self._gateway
        versions: dict[str, int] = {}
        records = [key for key in keys if is_record_key(key)]
        try:
            if time.monotonic() < self._unsettled_until:
                raise TimeoutError
            async with asyncio.timeout(SETTLE_SECONDS):
                await gateway.relay.settle()
            if records:
                async with gateway.database.joins:
                    text = await calls.subscribe(
                        gateway.database.work, subscriber.reader.claims, records, None
                    )
                versions = protocol.loads(text).get("versions") or {}
        except TimeoutError:
            if time.monotonic() >= self._unsettled_until:
                self._unsettled_until = time.monotonic() + SETTLE_SECONDS
            self._refuse("unavailable", "Not subscribed; try again", frame.id)
            return
        except psycopg.Error as exc:
            self._refuse_join(exc, frame.id)
            return
        unsure = gateway.relay.rights.unsure(subscriber.reader, keys, cursor, empty=frame.empty)
        subscribed = protocol.Subscribed(
            id=frame.id,
            cursor=self._sealed(gateway.hub.cursor) or "",
            versions=versions,
            stale=unsure or None,
            errors=errors or None,
        )
        self._send(subscribed)

    def _refuse_join(self, exc: psycopg.Error, frame_id: str | int) -> None:
        problem = from_database(exc)
        if problem.status == 401:
            raise Closed(protocol.SIGN_IN, problem.detail) from None
        self._refuse(problem.code, problem.detail or "Not subscribed; try again", frame_id)

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
