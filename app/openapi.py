"""The OpenAPI 3.1 document, made from the models."""

import functools
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from . import bodies, protocol

REFERENCE: Final = "#/components/schemas/{model}"

CLIENT_FRAMES: Final[tuple[type[BaseModel], ...]] = (
    protocol.Hello,
    protocol.Auth,
    protocol.Subscribe,
    protocol.Unsubscribe,
    protocol.Ping,
    protocol.Presence,
    protocol.Broadcast,
)
SERVER_FRAMES: Final[tuple[type[BaseModel], ...]] = (
    protocol.Welcome,
    protocol.Authed,
    protocol.Subscribed,
    protocol.Unsubscribed,
    protocol.Updates,
    protocol.Stale,
    protocol.Peers,
    protocol.Broadcasted,
    protocol.Pong,
    protocol.ErrorFrame,
)
_REFUSALS: Final = {
    "400": "Not readable, or not possible whatever the stored data",
    "401": "Sign in, or sign in again",
    "403": "No such record, or you may not do this",
    "413": "Too many bytes",
    "422": "Too many of something, or a transaction id used otherwise",
    "426": "Update the app first; keep what is queued (`Rowcast-Schema`)",
    "429": "Too much of this user is under way; the same request later will do (Retry-After)",
    "503": "Not now; the same request later will do (Retry-After)",
}


_NOT_AS_SAID: Final = "Not as described; `key` names the member"
_ACCOUNTS: Final = {
    401: "Wrong, or no session; sign in",
    410: "The link was used or is too old",
    413: "Too many bytes",
    415: "Send JSON",
    429: "Too many attempts (Retry-After)",
}


@functools.cache
def document_text(paths: frozenset[str]) -> str:
    """The document of a gateway that serves these paths, as JSON."""
    return orjson.dumps(document(paths), option=orjson.OPT_INDENT_2).decode()


def document(served: frozenset[str] | None = None) -> dict[str, Any]:
    """The document as an object; of all there is, where it is not said what is served."""
    from . import __version__

    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in (*CLIENT_FRAMES, *requests())),
        *((model, "serialization") for model in (*SERVER_FRAMES, *answers())),
    ]
    _, definitions = models_json_schema(models, ref_template=REFERENCE)
    schemas: dict[str, Any] = dict(sorted(definitions["$defs"].items()))
    schemas["ClientFrame"] = _one_of(CLIENT_FRAMES)
    schemas["ServerFrame"] = _one_of(SERVER_FRAMES)
    paths = {**_paths(), **_account_paths()}
    if served is not None:
        paths = {path: said for path, said in paths.items() if path in served}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rowcast",
            "version": __version__,
            "summary": "PostgreSQL as the backend of real-time, offline-first applications.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "rowcast_session"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "rowcast_account",
                    "description": "Over https `__Host-rowcast_account`.",
                },
            },
        },
    }


def requests() -> tuple[type[BaseModel], ...]:
    """Models of the bodies sent."""
    return (
        bodies.WriteBody,
        bodies.Transaction,
        bodies.GetRecordsBody,
        bodies.QueryBody,
        bodies.FileUploadBody,
        bodies.FileConfirmBody,
        bodies.FileDownloadBody,
        bodies.DevSignInBody,
        bodies.SignUpBody,
        bodies.VerifyBody,
        bodies.SignInBody,
        bodies.ChangePasswordBody,
        bodies.RequestResetBody,
        bodies.ResetBody,
    )


def answers() -> tuple[type[BaseModel], ...]:
    """Models of the bodies received."""
    return (
        bodies.WriteAnswer,
        bodies.TransactionAnswer,
        bodies.GetRecordsAnswer,
        bodies.QueryAnswer,
        bodies.FileUploadAnswer,
        bodies.FileConfirmAnswer,
        bodies.FileDownloadAnswer,
        bodies.FileReceipt,
        bodies.Problem,
        bodies.DevSignInAnswer,
        bodies.CheckMail,
        bodies.AccountUser,
        bodies.SignedIn,
        bodies.MeAnswer,
        bodies.SignInProvider,
        bodies.SignInWays,
        bodies.Health,
        bodies.Readiness,
    )


def _paths() -> dict[str, Any]:
    rollback = {
        "name": "Prefer",
        "in": "header",
        "description": "`tx=rollback` returns the outcome and keeps nothing.",
        "schema": {"type": "string"},
    }
    write = _post(
        "Write transactions",
        "One transaction as the body, or a batch. Repeating a `txId` has no further effect.",
        [bodies.WriteBody, bodies.Transaction],
        [bodies.WriteAnswer, bodies.TransactionAnswer],
        conflict=True,
    )
    schema = {
        "name": "Rowcast-Schema",
        "in": "header",
        "description": "Version of the schema the client was made for; too old is 426.",
        "schema": {"type": "string"},
    }
    query = _post("Query records", "A page of a table.", [bodies.QueryBody], [bodies.QueryAnswer])
    query["responses"]["200"]["content"]["application/x-ndjson"] = {
        "schema": {
            "type": "string",
            "description": "With `Accept: application/x-ndjson`: a header line with the cursor, "
            "then one record a line.",
        }
    }
    records = _post(
        "Get records",
        "Records by table and id.",
        [bodies.GetRecordsBody],
        [bodies.GetRecordsAnswer],
    )
    for operation in (write, query, records):
        operation["parameters"] = [schema]
    write["parameters"] = [schema, rollback]
    sign_in = _post(
        "Sign in as a demo user",
        "Without a password; for development only.",
        [bodies.DevSignInBody],
        [bodies.DevSignInAnswer],
    )
    upload = _post(
        "Ask to upload a file",
        "Where and how to send the bytes of a file that its record names.",
        [bodies.FileUploadBody],
        [bodies.FileUploadAnswer],
        conflict=True,
    )
    confirm = _post(
        "Confirm a file",
        "After the upload: the gateway looks at the bytes, and the record is ready.",
        [bodies.FileConfirmBody],
        [bodies.FileConfirmAnswer],
        conflict=True,
    )
    download = _post(
        "Ask to download a file",
        "A link to the bytes, for whoever can read the record.",
        [bodies.FileDownloadBody],
        [bodies.FileDownloadAnswer],
        conflict=True,
    )
    socket = _get(
        "Live changes",
        "WebSocket. The client sends ClientFrame, the server ServerFrame, as JSON text.",
        {"101": {"description": "Switching protocols"}},
    )
    return {
        "/api/realtime/write": {"post": write},
        "/api/realtime/getRecords": {"post": records},
        "/api/realtime/query": {"post": query},
        "/api/realtime/socket": {"get": socket},
        "/api/files/upload": {"post": upload},
        "/api/files/confirm": {"post": confirm},
        "/api/files/download": {"post": download},
        "/api/files/content": _content(),
        "/api/auth/dev-sign-in": {"post": {**sign_in, "security": []}},
        "/healthz": {"get": _state("The process runs", bodies.Health)},
        "/readyz": {"get": _state("Requests can be served", bodies.Readiness, "503")},
        "/metrics": {
            "get": _get(
                "Metrics",
                "Prometheus text.",
                {"200": {"description": "OK", "content": {"text/plain": {}}}},
                public=True,
            )
        },
    }


def _account_paths() -> dict[str, Any]:
    """docs/reference/accounts.md says more."""
    public: list[Any] = []
    session: list[Any] = [{"session": []}]
    signed, mailed = bodies.SignedIn, bodies.CheckMail

    def post(
        summary: str,
        takes: type[BaseModel] | None,
        gives: type[BaseModel] | None,
        security: list[Any],
        *more: int,
        status: str = "200",
    ) -> dict[str, Any]:
        made = _post(summary, f"{summary}.", [takes] if takes else [], [gives] if gives else [])
        ok = made["responses"].pop("200")
        if gives is None:
            del ok["content"]
        refusals = {400: _NOT_AS_SAID, 403: "From another page, or disabled", **_ACCOUNTS}
        known = {str(code): _problem(refusals[code]) for code in (400, 403, 413, 415, 429, *more)}
        known["503"] = made["responses"]["503"]
        return {
            "post": {
                **made,
                "responses": {status: ok, **dict(sorted(known.items()))},
                "security": security,
            }
        }

    ways = _get("List ways to sign in", "Providers, and whether guests are let in.", {}, True)
    ways["responses"] = {"200": _answer(bodies.SignInWays)}
    me = _get("Get the user of a token", "Whose the token is.", {})
    me["responses"] = {"200": _answer(bodies.MeAnswer), "401": _problem(_REFUSALS["401"])}
    me["security"] = [{"bearer": []}]
    mail = {
        name: {
            **_get(
                summary,
                f"{summary}. The link of a mail; whoever has it may.",
                {
                    "200": {"description": "OK", "content": {"text/html": {}}},
                    "403": _problem("The link is not one of ours, or not whole"),
                    "429": _problem(_REFUSALS["429"]),
                    "503": _problem(_REFUSALS["503"]),
                },
                public=True,
            ),
            "parameters": [
                {"name": part, "in": "query", "required": True, "schema": {"type": "string"}}
                for part in ("user", "topics", "token")
            ],
        }
        for name, summary in (("get", "Ask whether to unsubscribe"), ("post", "Unsubscribe"))
    }
    return {
        "/api/mail/unsubscribe": mail,
        "/api/auth/providers": {"get": ways},
        "/api/auth/sign-up": post("Sign up", bodies.SignUpBody, mailed, public, status="202"),
        "/api/auth/verify": post("End a sign-up", bodies.VerifyBody, signed, public, 410),
        "/api/auth/sign-in": post("Sign in", bodies.SignInBody, signed, public, 401),
        "/api/auth/guest": post("Begin as a guest", None, signed, public),
        "/api/auth/refresh": post("Get the next token", None, signed, session, 401),
        "/api/auth/sign-out": post("Sign out", None, None, session, status="204"),
        "/api/auth/sign-out-everywhere": post(
            "Sign out everywhere", None, None, session, status="204"
        ),
        "/api/auth/me": {"get": me},
        "/api/auth/change-password": post(
            "Change the password", bodies.ChangePasswordBody, signed, session, 401
        ),
        "/api/auth/request-reset": post(
            "Ask for another password", bodies.RequestResetBody, mailed, public, status="202"
        ),
        "/api/auth/reset": post("Set another password", bodies.ResetBody, signed, public, 410),
    }


def _answer(model: type[BaseModel]) -> dict[str, Any]:
    return {"description": "OK", "content": {"application/json": {"schema": _one_of([model])}}}


def _content() -> dict[str, Any]:
    """The bytes: whoever has the link needs nothing else."""
    whole = {"description": "OK", "content": {"*/*": {}}}
    get = _get(
        "Download",
        "Of a link that was given out; `Range` with one range.",
        {
            "200": whole,
            "206": whole,
            "403": _problem("The link is not valid, or not any more"),
            "404": _problem("The file is gone"),
            "416": _problem("The file ends before these bytes"),
            "429": _problem("Too many downloads of this user are under way"),
            "503": _problem("The store does not answer"),
        },
        public=True,
    )
    put = _get(
        "Upload",
        "Of a link that was given out, with exactly its length and type.",
        {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": _one_of([bodies.FileReceipt])}},
            },
            "403": _problem("The link is not valid, not any more, or not for these bytes"),
            "408": _problem("Too slow"),
            "409": _problem("The bytes are there, or are others than the record says"),
            "429": _problem("Too many uploads of this user are under way"),
            "503": _problem("The store does not answer, or has no room"),
        },
        public=True,
    )
    put["requestBody"] = {"required": True, "content": {"*/*": {}}}
    return {"get": get, "put": put}


def _post(
    summary: str,
    description: str,
    takes: list[type[BaseModel]],
    gives: list[type[BaseModel]],
    conflict: bool = False,
) -> dict[str, Any]:
    refusals = {**_REFUSALS, **({"409": "Another state than expected"} if conflict else {})}
    return {
        "summary": summary,
        "description": description,
        "operationId": _operation(summary),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _one_of(takes)}},
        },
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": _one_of(gives)}},
            },
            **{status: _problem(text) for status, text in sorted(refusals.items())},
        },
    }


def _get(
    summary: str, description: str, responses: dict[str, Any], public: bool = False
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "summary": summary,
        "description": description,
        "operationId": _operation(summary),
        "responses": responses,
    }
    return {**answer, "security": []} if public else answer


def _state(summary: str, model: type[BaseModel], *others: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _one_of([model])}}
    answers = {
        status: {"description": "Yes" if status == "200" else "No", "content": content}
        for status in ("200", *others)
    }
    return _get(summary, f"{summary}.", answers, public=True)


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": _one_of([bodies.Problem])}},
    }


def _operation(summary: str) -> str:
    first, *rest = summary.split()
    return first.lower() + "".join(word.capitalize() for word in rest)


def _one_of(models: list[type[BaseModel]] | tuple[type[BaseModel], ...]) -> dict[str, Any]:
    if not models:
        return {"type": "object"}
    references = [{"$ref": REFERENCE.format(model=model.__name__)} for model in models]
    return references[0] if len(references) == 1 else {"oneOf": references}
