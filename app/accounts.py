"""Accounts over HTTP: sign-up, sign-in, sessions, passwords, providers. docs/reference/accounts.md.

What may be done and how often is decided by the functions `accounts.gateway_*`; here passwords are
hashed, secrets made, tokens signed, cookies set.
"""

import secrets
import time
import uuid
from datetime import UTC, datetime
from typing import Any, Final, LiteralString
from urllib.parse import quote, urlencode, urlsplit

import orjson
import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from . import account_calls, mails, passwords
from .auth import COOKIE, origin_allowed, sign_in_again
from .errors import Problem, from_database
from .gateway import Gateway
from .oidc import Client, Failed
from .passwords import Passwords
from .routes import authenticate, caller_address, gateway_of, read_text
from .tokens import PART_BYTES, Cookie, digest, link_hash

SESSION: Final = "rowcast_account"
PENDING: Final = "rowcast_pending"
FLOW: Final = "rowcast_flow"
PENDING_SECONDS: Final = 24 * 3600
FLOW_SECONDS: Final = 600
KNOWN: Final = "rowcast_known"
KNOWN_SECONDS: Final = 365 * 24 * 3600
MAX_TEXT: Final = 2048
OIDC_ERRORS: Final = frozenset({"disabled", "rate_limited", "unavailable", "retry"})


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The routes of accounts."""
    settings = gateway.settings
    table: list[BaseRoute] = [
        Route("/api/auth/providers", providers),
        Route(mails.UNSUBSCRIBE, unsubscribe, methods=["GET", "POST"]),
        Route("/api/auth/sign-up", sign_up, methods=["POST"]),
        Route("/api/auth/verify", verify, methods=["POST"]),
        Route("/api/auth/sign-in", sign_in, methods=["POST"]),
        Route("/api/auth/refresh", refresh, methods=["POST"]),
        Route("/api/auth/sign-out", sign_out, methods=["POST"]),
        Route("/api/auth/sign-out-everywhere", sign_out_everywhere, methods=["POST"]),
        Route("/api/auth/me", me),
        Route("/api/auth/change-password", change_password, methods=["POST"]),
        Route("/api/auth/request-reset", request_reset, methods=["POST"]),
        Route("/api/auth/reset", reset, methods=["POST"]),
    ]
    if settings.guests:
        table.append(Route("/api/auth/guest", guest, methods=["POST"]))
    for provider in settings.providers:
        client = Client(provider, f"{settings.public_url}/api/auth/oidc/{provider.id}/callback")
        path = f"/api/auth/oidc/{provider.id}"
        table.append(Route(f"{path}/start", _with(client, oidc_start)))
        table.append(Route(f"{path}/callback", _with(client, oidc_callback)))
    if settings.dev_sign_in:
        table.append(Route("/api/auth/dev-mails", dev_mails))
    return table


async def providers(request: Request) -> Response:
    """GET /api/auth/providers: by what one can sign in here."""
    settings = gateway_of(request).settings
    listed = [
        {"id": p.id, "name": p.name, "startUrl": f"/api/auth/oidc/{p.id}/start"}
        for p in settings.providers
    ]
    return JSONResponse(
        {
            "providers": listed,
            "guests": settings.guests,
            "passwordMinLength": passwords.MIN_CHARACTERS,
        }
    )


async def sign_up(request: Request) -> Response:
    """POST /api/auth/sign-up: a mail with a link; the same answer for every address."""
    gateway, body = gateway_of(request), await _body(request)
    email, password = _text(body, "email"), _text(body, "password")
    passwords.check(password, email)
    _count(request)
    await _call(gateway, account_calls.BEGIN_SIGN_UP, email=email, address=caller_address(request))
    link, browser = uuid.uuid4(), secrets.token_bytes(PART_BYTES)
    hashed = await _hasher(gateway).hash(password)
    known = _known(_cookie(request))
    await _call(
        gateway,
        account_calls.SIGN_UP,
        email=email,
        password_hash=hashed,
        link=link,
        token_hash=link_hash(gateway.signer.link(link)),
        browser_hash=digest(browser),
        **known,
    )
    answer = JSONResponse({"status": "check_mail"}, 202)
    _set(request, answer, PENDING, browser.hex(), PENDING_SECONDS)
    return answer


async def verify(request: Request) -> Response:
    """POST /api/auth/verify: ends a sign-up by the link of its mail."""
    gateway, body = gateway_of(request), await _body(request)
    token = link_hash(_text(body, "token"))
    password = _text(body, "password") if body.get("password") is not None else None
    _count(request)
    opened = await _call(
        gateway,
        account_calls.OPEN_LINK,
        purpose="sign_up",
        token_hash=token,
        browser_hash=_browser(request),
        address=caller_address(request),
    )
    if not opened["bound"]:
        if password is None:
            raise Problem(403, "password_needed", "Enter the password chosen at sign-up")
        right, _ = await _hasher(gateway).verify(password, opened.get("passwordHash"))
        if not right:
            raise Problem(403, "wrong_credentials", "This is not the password of the sign-up")
    answer = await _signed_in(request, account_calls.VERIFY, token_hash=token)
    _drop(request, answer, PENDING)
    return answer


async def sign_in(request: Request) -> Response:
    """POST /api/auth/sign-in: by address and password."""
    gateway, body = gateway_of(request), await _body(request)
    email, password = _text(body, "email"), _text(body, "password")
    _count(request)
    # A browser in which he signed in before counts by itself: strangers cannot lock him out.
    known_user, known_browser = _known_browser(request) or (None, None)
    counted = {
        "email": email,
        "address": caller_address(request),
        "known": known_user,
        "browser": known_browser,
    }
    begun = await _call(
        gateway, account_calls.BEGIN_SIGN_IN, development=gateway.settings.dev_sign_in, **counted
    )
    known = begun["passwordHash"]
    right, new = await _hasher(gateway).verify(password, known)
    return await _signed_in(
        request,
        account_calls.SIGN_IN,
        password_hash=known if right else None,
        new_hash=new,
        **counted,
    )


async def guest(request: Request) -> Response:
    """POST /api/auth/guest: begins without an address."""
    await _body(request)
    _count(request)
    return await _signed_in(request, account_calls.GUEST, address=caller_address(request))


async def refresh(request: Request) -> Response:
    """POST /api/auth/refresh: the next token, and the next cookie."""
    gateway, cookie = gateway_of(request), await _own(request)
    salt = secrets.token_bytes(PART_BYTES)
    known = cookie.known()
    answer = await _call(
        gateway,
        account_calls.REFRESH,
        next_hash=digest(cookie.successor(salt).secret),
        salt=salt,
        **known,
    )
    refused = answer.get("refused")
    if refused == "disabled":
        raise Problem(403, "disabled", "This user is disabled")
    if refused is not None:
        raise session_ended()
    return _welcome(request, answer, cookie.successor(bytes.fromhex(answer["salt"])))


async def sign_out(request: Request) -> Response:
    """POST /api/auth/sign-out: ends this session."""
    return await _sign_out(request, everywhere=False)


async def sign_out_everywhere(request: Request) -> Response:
    """POST /api/auth/sign-out-everywhere: ends all sessions and tokens of this user."""
    return await _sign_out(request, everywhere=True)


async def me(request: Request) -> Response:
    """GET /api/auth/me: whose the token is."""
    gateway, session = gateway_of(request), await authenticate(request)
    if session.claims is None:
        raise sign_in_again("Sign in first")
    found = await _call(gateway, account_calls.ME, claims=session.claims)
    return JSONResponse({"user": found["user"]})


async def change_password(request: Request) -> Response:
    """POST /api/auth/change-password: needs the current one; ends all other sessions."""
    gateway, cookie = gateway_of(request), await _own(request)
    body = await _json(request)
    password = _text(body, "password")
    current = _text(body, "current") if body.get("current") is not None else ""
    known = cookie.known()
    begun = await _call(gateway, account_calls.BEGIN_CHANGE, **known)
    passwords.check(password, begun.get("email") or "")
    old = begun["passwordHash"]
    right, _ = await _hasher(gateway).verify(current, old)
    if not right:
        raise Problem(403, "wrong_credentials", "The current password is wrong")
    hashed = await _hasher(gateway).hash(password)
    answer = await _call(gateway, account_calls.SET_ANOTHER, old_hash=old, new_hash=hashed, **known)
    return _welcome(request, answer, cookie)


async def request_reset(request: Request) -> Response:
    """POST /api/auth/request-reset: a mail with a link, where there is an account."""
    gateway, body = gateway_of(request), await _body(request)
    email = _text(body, "email")
    _count(request)
    link = uuid.uuid4()
    await _call(
        gateway,
        account_calls.REQUEST_RESET,
        email=email,
        link=link,
        token_hash=link_hash(gateway.signer.link(link)),
        address=caller_address(request),
    )
    return JSONResponse({"status": "check_mail"}, 202)


async def reset(request: Request) -> Response:
    """POST /api/auth/reset: another password by the link of a mail; ends all sessions."""
    gateway, body = gateway_of(request), await _body(request)
    token, password = link_hash(_text(body, "token")), _text(body, "password")
    _count(request)
    opened = await _call(
        gateway,
        account_calls.OPEN_LINK,
        purpose="reset",
        token_hash=token,
        browser_hash=None,
        address=caller_address(request),
    )
    passwords.check(password, opened["email"])
    hashed = await _hasher(gateway).hash(password)
    return await _signed_in(request, account_calls.RESET, token_hash=token, new_hash=hashed)


async def oidc_start(request: Request, client: Client) -> Response:
    """GET /api/auth/oidc/{provider}/start: sends the browser to the provider."""
    gateway = gateway_of(request)
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Problem(403, "origin", "Sign in from this server's own pages")
    _count(request)
    address, flow = await client.start()
    cookie = _cookie(request)
    remembered = {}
    if cookie is not None:
        remembered = await _call(gateway, account_calls.GUEST_SESSION, **cookie.known())
    sealed = gateway.signer.seal(
        {
            **flow,
            **remembered,
            "provider": client.provider.id,
            "next": _local(request.query_params.get("next")),
        }
    )
    answer = RedirectResponse(address, 303)
    # Lax: the browser comes back from another site.
    _set(request, answer, FLOW, sealed, FLOW_SECONDS, lax=True)
    return answer


async def oidc_callback(request: Request, client: Client) -> Response:
    """GET /api/auth/oidc/{provider}/callback: the browser is back from the provider."""
    try:
        answer = await _finish(request, client)
    except Failed:
        answer = _in_vain(request, "oidc_failed")
    except psycopg.Error as exc:
        answer = _in_vain(request, from_database(exc).code)
    except Problem as problem:
        answer = _in_vain(request, problem.code)
    _drop(request, answer, FLOW)
    return answer


async def _finish(request: Request, client: Client) -> Response:
    gateway, asked, provider = gateway_of(request), request.query_params, client.provider
    _count(request)
    flow = gateway.signer.unseal(request.cookies.get(_name(request, FLOW), ""))
    state = asked.get("state", "")
    if (
        flow is None
        or flow.get("provider") != provider.id
        or not secrets.compare_digest(str(flow.get("state")).encode(), state.encode())
        or asked.get("iss", provider.issuer) != provider.issuer  # RFC 9207
    ):
        raise Failed("state")
    if "code" not in asked:
        return _in_vain(request, "oidc_denied" if "error" in asked else "oidc_failed")
    claims = await client.finish(asked["code"], flow)
    email = claims.get("email")
    made = Cookie.new()
    known = made.known()
    signed = await _call(
        gateway,
        account_calls.PROVIDER_SIGN_IN,
        provider=provider.id,
        issuer=provider.issuer,
        subject=claims["sub"],
        email=email if isinstance(email, str) else None,
        email_verified=claims.get("email_verified") is True,
        guest=flow.get("guest"),
        address=caller_address(request),
        **known,
    )
    answer = RedirectResponse(f"{gateway.settings.public_url}{_local(flow.get('next'))}", 303)
    _set(request, answer, SESSION, made.text(), int(signed["seconds"]))
    return answer


def _in_vain(request: Request, code: str) -> Response:
    known = code if code in OIDC_ERRORS or code.startswith("oidc_") else "oidc_failed"
    shown = "unavailable" if known == "retry" else known
    return RedirectResponse(
        f"{gateway_of(request).settings.public_url}/account/sign-in#{urlencode({'error': shown})}",
        303,
    )


async def dev_mails(request: Request) -> Response:
    """GET /api/auth/dev-mails: the outbox, links and all; with the development sign-in alone."""
    gateway = gateway_of(request)
    due = await _call(gateway, account_calls.MAILS, most=100)
    public = gateway.settings.public_url or ""
    shown = [mails.render(mail, public, gateway.signer) for mail in reversed(due)]
    return JSONResponse({"mails": shown})


async def unsubscribe(request: Request) -> Response:
    """GET asks, since programs follow links of mails; POST does it, from that page or by a mail
    program's one click (RFC 8058). No session: whoever has the mail may.
    """
    gateway = gateway_of(request)
    given = request.query_params
    topics = given.get("topics", "")[:1000].split(",")
    try:
        user = uuid.UUID(given.get("user", ""))
    except ValueError:
        raise _no_link() from None
    if not gateway.signer.may_unsubscribe(given.get("token", ""), user, topics):
        raise _no_link()
    if request.method == "POST":
        await _call(gateway, account_calls.UNSUBSCRIBE, user=user, topics=topics)
    # The form leads to where it came from.
    headers = {"Content-Security-Policy": "default-src 'none'; form-action 'self'"}
    page = mails.page("unsubscribe.html", done=request.method == "POST")
    return HTMLResponse(page, headers=headers)


def _no_link() -> Problem:
    return Problem(403, "forbidden", "This link is not one of ours, or not whole")


# --- what the routes share -----------------------------------------------------------------------


def session_ended() -> Problem:
    """401: whoever has this cookie has to sign in."""
    return sign_in_again("The session has ended; sign in again", "session_ended")


def _with(client: Client, route: Any) -> Any:
    async def serve(request: Request) -> Response:
        answer: Response = await route(request, client)
        return answer

    return serve


async def _call(gateway: Gateway, statement: LiteralString, **given: Any) -> Any:
    return await account_calls.account(gateway.database.work, statement, **given)


async def _signed_in(request: Request, statement: LiteralString, **given: Any) -> Response:
    """Makes a session, always a new one, and gives the browser its cookie and token."""
    made = Cookie.new()
    answer = await _call(gateway_of(request), statement, **given, **made.known())
    return _welcome(request, answer, made)


def _welcome(request: Request, signed: dict[str, Any], cookie: Cookie) -> Response:
    claims = signed["claims"]
    answer = JSONResponse(
        {
            "token": gateway_of(request).signer.token(claims),
            "expiresAt": datetime.fromtimestamp(claims["exp"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "user": signed["user"],
        }
    )
    _set(request, answer, SESSION, cookie.text(), int(signed["seconds"]))
    user, known = uuid.UUID(signed["user"]["id"]), _known_browser(request)
    if signed["user"]["hasPassword"] and (known is None or known[0] != user):
        name = gateway_of(request).signer.browser(user)
        _set(request, answer, KNOWN, name, KNOWN_SECONDS)
    return answer


async def _sign_out(request: Request, *, everywhere: bool) -> Response:
    gateway = gateway_of(request)
    await _body(request)
    _same_origin(request)
    cookie = _cookie(request)
    if cookie is not None:
        await _call(
            gateway,
            account_calls.SIGN_OUT,
            session=cookie.session,
            family=digest(cookie.family),
            everywhere=everywhere,
        )
    answer = Response(status_code=204)
    for name in (SESSION, PENDING, FLOW):
        _drop(request, answer, name)
    answer.delete_cookie(COOKIE, path="/api")
    return answer


async def _own(request: Request) -> Cookie:
    """The session of the cookie, from a page of ours. Raises 401, 403, 415, 429."""
    _announced(request)
    _same_origin(request)
    _count(request)
    cookie = _cookie(request)
    if cookie is None:
        raise sign_in_again("Sign in first")
    return cookie


async def _body(request: Request) -> dict[str, Any]:
    """The body of a request that needs no cookie: from our pages, or from no page at all."""
    _announced(request)
    if "origin" in request.headers:
        _same_origin(request)
    return await _json(request)


async def _json(request: Request) -> dict[str, Any]:
    text = await read_text(request)
    try:
        body: Any = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        raise Problem(400, "bad_json", "The body is not JSON") from None
    if not isinstance(body, dict):
        raise Problem(400, "bad_request", "The body is a JSON object")
    return body


def _announced(request: Request) -> None:
    """A form of another site cannot announce JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "bad_media_type", "Send JSON, as Content-Type: application/json")


def _same_origin(request: Request) -> None:
    if not origin_allowed(request.headers, gateway_of(request).settings.origins):
        raise Problem(403, "origin", "Only this server's own pages may do this")


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or "\0" in value:
        raise _bad(key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(key) from None
    return value


def _bad(key: str) -> Problem:
    return Problem(400, "bad_request", f"The body needs a text member {key}", key=key)


def _count(request: Request) -> None:
    gateway_of(request).limits.check_address(caller_address(request), time.monotonic())


def _hasher(gateway: Gateway) -> Passwords:
    assert gateway.passwords is not None  # there are no routes without  # noqa: S101
    return gateway.passwords


def _local(path: str | None) -> str:
    """A path of our own pages, whatever was asked for: never another site."""
    if not path or len(path) > MAX_TEXT or not path.startswith("/") or path[1:2] in ("/", "\\"):
        return "/"
    if any(ord(character) <= 32 or character == "\\" for character in path):
        return "/"
    parts = urlsplit(path)
    return (
        quote(path, safe="/?#=&%~:;,@!$'()*+-._") if not parts.scheme and not parts.netloc else "/"
    )


# --- cookies -------------------------------------------------------------------------------------


def _secure(request: Request) -> bool:
    public = gateway_of(request).settings.public_url or ""
    return request.url.scheme == "https" or public.startswith("https:")


def _name(request: Request, name: str) -> str:
    """With https the browser takes it from this host alone: no neighbour can put one there."""
    return f"__Host-{name}" if _secure(request) else name


def _set(
    request: Request, answer: Response, name: str, value: str, seconds: int, lax: bool = False
) -> None:
    answer.set_cookie(
        _name(request, name),
        value,
        max_age=seconds,
        path="/",
        secure=_secure(request),
        httponly=True,
        samesite="lax" if lax else "strict",
    )


def _drop(request: Request, answer: Response, name: str) -> None:
    answer.delete_cookie(
        _name(request, name), path="/", secure=_secure(request), httponly=True, samesite="strict"
    )


def _cookie(request: Request) -> Cookie | None:
    return Cookie.read(request.cookies.get(_name(request, SESSION)))


def _known_browser(request: Request) -> tuple[uuid.UUID, str] | None:
    """Who has signed in in this browser before, and its name."""
    return gateway_of(request).signer.known(request.cookies.get(_name(request, KNOWN), ""))


def _known(cookie: Cookie | None) -> dict[str, Any]:
    return cookie.known() if cookie else {"session": None, "family": None, "secret": None}


def _browser(request: Request) -> bytes | None:
    """The hash of the cookie that the browser got when it signed up."""
    try:
        return digest(bytes.fromhex(request.cookies.get(_name(request, PENDING), "")))
    except ValueError:
        return None
