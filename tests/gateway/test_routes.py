"""HTTP: what comes in, what goes out, and that nothing else does."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    CAROL,
    Service,
    eventually,
    settings_for,
    token,
    transaction,
)

WRITE = "/api/realtime/write"
GET = "/api/realtime/getRecords"
QUERY = "/api/realtime/query"


def create(task: str, title: str = "new", board: str = BOARD) -> dict[str, Any]:
    value = {"boardId": board, "title": title}
    return {"type": "create", "table": "tasks", "id": task, "value": value}


def problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Checks the form every refusal has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"]
    assert body["title"]
    assert code is None or body["code"] == code
    return body


@pytest.mark.both_versions
async def test_a_write_is_applied_once_and_read_back(service: Service) -> None:
    task = str(uuid.uuid4())
    sent = transaction(create(task))
    first = await service.post(WRITE, sent)
    assert first.json()["status"] == "applied"
    assert first.json()["recordMap"]["tasks"][task]["version"] == 1
    again = await service.post(WRITE, sent)
    assert again.json()["status"] == "duplicate"
    found = await service.post(GET, {"pointers": [{"table": "tasks", "id": task}]}, BOB)
    assert found.json()["recordMap"]["tasks"][task]["title"] == "new"
    hidden = await service.post(GET, {"pointers": [{"table": "tasks", "id": task}]}, CAROL)
    assert hidden.json()["recordMap"] == {}
    assert hidden.json()["gone"] == [{"table": "tasks", "id": task}]


async def test_a_batch_answers_per_transaction(service: Service) -> None:
    good, bad = str(uuid.uuid4()), str(uuid.uuid4())
    body = {
        "transactions": [
            transaction(create(good)),
            transaction({"type": "set", "table": "tasks", "id": bad, "key": "title", "value": "x"}),
        ]
    }
    results = (await service.post(WRITE, body)).json()["results"]
    assert [result["status"] for result in results] == ["applied", "refused"]
    assert results[1]["error"]["status"] == 403


async def test_a_refusal_has_its_own_status(service: Service) -> None:
    operation = {"type": "set", "table": "tasks", "id": str(uuid.uuid4()), "key": "title"}
    answer = await service.post(WRITE, transaction({**operation, "value": "x"}), CAROL)
    problem(answer, 403, "forbidden")


@pytest.mark.parametrize("value", ["1e400", "[" * 2000 + "]" * 2000], ids=["large", "deep"])
async def test_a_conflict_that_shows_what_only_plain_sql_can_store_is_409(
    service: Service, run: Callable[..., Any], value: str
) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    run("update public.tasks set metadata = %s where id = %s", f'{{"n": {value}}}', task)
    operation = {"type": "set", "table": "tasks", "id": task, "key": "title", "value": "x"}
    expect = [{"table": "tasks", "id": task, "version": 1}]
    answer = await service.post(WRITE, {**transaction(operation), "expect": expect})
    assert answer.status_code == 409, answer.text
    assert '"code": "conflict"' in answer.text
    assert '"metadata":{"n": ' in answer.text


async def test_many_writers_at_once_are_all_answered(service: Service) -> None:
    tasks = [str(uuid.uuid4()) for _ in range(60)]
    users = [ALICE, BOB] * 30
    answers = await asyncio.gather(
        *(
            service.post(WRITE, transaction(create(task)), user)
            for task, user in zip(tasks, users, strict=True)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    pointers = [{"table": "tasks", "id": task} for task in tasks]
    found = (await service.post(GET, {"pointers": pointers})).json()["recordMap"]["tasks"]
    assert {found[task]["createdBy"] for task in tasks[::2]} == {ALICE}
    assert {found[task]["createdBy"] for task in tasks[1::2]} == {BOB}


@pytest.mark.parametrize("way", ["header", "member"])
async def test_a_dry_run_keeps_nothing(service: Service, way: str) -> None:
    task = str(uuid.uuid4())
    body, headers = transaction(create(task)), {}
    if way == "header":
        headers = {"prefer": "respond-async, tx=rollback"}
    else:
        body = {"transactions": [body], "dryRun": True}
    answer = await service.post(WRITE, body, ALICE, **headers)
    assert answer.status_code == 200
    assert task in answer.json()["recordMap"]["tasks"]
    found = await service.post(GET, {"pointers": [{"table": "tasks", "id": task}]})
    assert found.json()["recordMap"] == {}


async def test_a_query_answers_a_page(service: Service) -> None:
    answer = (await service.post(QUERY, {"table": "tasks", "where": {"boardId": BOARD}})).json()
    assert answer["ids"]
    assert answer["keys"] == [f"tasks?boardId={BOARD}"]
    assert answer["cursor"]
    assert set(answer["recordMap"]["tasks"]) == set(answer["ids"])


@pytest.mark.both_versions
async def test_a_query_streams_ndjson(service: Service, run: Callable[..., Any]) -> None:
    run(
        "insert into public.tasks (board_id, title, created_by)"
        " select %s, 'task ' || n, %s from generate_series(1, 3000) n",
        BOARD,
        ALICE,
    )
    body = {"table": "tasks", "where": {"boardId": BOARD}}
    answer = await service.post(QUERY, body, ALICE, accept="application/x-ndjson")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    header, *records = [json.loads(line) for line in answer.text.splitlines()]
    assert header["cursor"]
    assert len(records) >= 3000
    assert {record["boardId"] for record in records} == {BOARD}
    assert len({record["id"] for record in records}) == len(records)


async def test_a_refused_stream_has_its_status(service: Service) -> None:
    answer = await service.post(QUERY, {"table": "none"}, ALICE, accept="application/x-ndjson")
    problem(answer, 400)


async def test_a_reader_who_leaves_a_stream_frees_its_connection(
    service: Service, run: Callable[..., Any]
) -> None:
    run(
        "insert into public.tasks (board_id, title, description, created_by)"
        " select %s, 'task', repeat('x', 1000), %s from generate_series(1, 20000) n",
        BOARD,
        ALICE,
    )
    headers = {"authorization": f"Bearer {token()}", "accept": "application/x-ndjson"}
    content = json.dumps({"table": "tasks", "where": {"boardId": BOARD}})
    for _ in range(service.gateway.settings.pool_size + 1):
        async with service.http.stream("POST", QUERY, content=content, headers=headers) as answer:
            await anext(answer.aiter_bytes())
    open_transactions = (
        "select count(*) from pg_stat_activity"
        " where application_name = 'rowcast-work' and xact_start is not null"
    )

    async def freed() -> bool:
        return bool(run(open_transactions) == 0)

    await eventually(freed)
    assert (await service.post(QUERY, {"table": "boards"})).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("nothing", 400),
        ("[]", 400),
        ("{}", 400),
        ("null", 400),
        ('"text"', 400),
        (b"\xff\xfe", 400),
        ('{"a":"\0"}', 400),
        ('{"txId":"\\u0000"}', 400),
        ('{"txId":"\\ud800"}', 400),
        ('{"n":1e131071}', 400),
        ('{"transactions":[]}', 400),
        ('{"transactions":1}', 400),
    ],
)
async def test_unreadable_bodies_are_400_at_every_route(
    service: Service, body: str | bytes, status: int
) -> None:
    for path in (WRITE, GET, QUERY):
        problem(await service.post(path, body), status)


@pytest.mark.parametrize("path", [WRITE, GET, QUERY])
async def test_depth_without_end_is_422_and_the_process_lives(service: Service, path: str) -> None:
    answer = await service.post(path, '{"a":' * 100_000 + "1" + "}" * 100_000)
    assert answer.status_code in (400, 422)
    problem(answer, answer.status_code)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_beyond_the_limit_is_413(service: Service, announced: bool) -> None:
    size = 10 * 1024 * 1024

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield b" " * 65536

    headers = {"authorization": f"Bearer {token()}"}
    content = b" " * size if announced else parts()
    try:
        answer = await service.http.post(WRITE, content=content, headers=headers)
    except httpx.WriteError:
        return  # the answer came, and the connection ended, while the body was being sent
    body = problem(answer, 413, "too_large")
    assert body["limit"] == service.gateway.settings.max_body_bytes


async def test_without_a_token_it_is_401(service: Service) -> None:
    for path in (WRITE, GET, QUERY):
        answer = await service.post(path, "{}", None)
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_two_tokens_are_401(service: Service) -> None:
    pair = [("authorization", f"Bearer {token()}")] * 2
    problem(await service.http.post(QUERY, content="{}", headers=pair), 401)


async def test_a_token_in_the_address_is_not_looked_at(service: Service) -> None:
    problem(await service.post(f"{QUERY}?token={token()}&access_token={token()}", "{}", None), 401)


async def test_a_cookie_needs_our_own_origin(service: Service) -> None:
    cookie = {"cookie": f"rowcast_session={token()}"}
    body = {"table": "boards"}
    problem(await service.post(QUERY, body, None, **cookie), 403, "origin")
    evil = {**cookie, "origin": "https://evil.example"}
    problem(await service.post(QUERY, body, None, **evil), 403, "origin")
    answer = await service.post(QUERY, body, None, **cookie, origin=service.url)
    assert answer.status_code == 200


async def test_dev_sign_in_gives_a_working_token_and_a_cookie(service: Service) -> None:
    answer = await service.post("/api/auth/dev-sign-in", {"user": "bob"}, None)
    assert answer.json()["userId"] == BOB
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    headers = {"authorization": f"Bearer {answer.json()['token']}"}
    found = await service.post(QUERY, {"table": "boards"}, None, **headers)
    assert found.json()["ids"]


@pytest.mark.parametrize(
    "body", ['{"user":"mallory"}', '{"user":1}', "[]", "x", "{}", '{"user":"\\u0000"}']
)
async def test_dev_sign_in_of_nobody_is_400(service: Service, body: str) -> None:
    problem(await service.post("/api/auth/dev-sign-in", body, None), 400)


async def test_dev_sign_in_from_elsewhere_is_refused(service: Service) -> None:
    body = {"user": "bob"}
    answer = await service.post("/api/auth/dev-sign-in", body, None, origin="https://evil.example")
    problem(answer, 403, "origin")


async def test_dev_sign_in_is_absent_unless_turned_on(gateway_dsn: str) -> None:
    async with Service(settings_for(gateway_dsn, dev_sign_in=False)) as service:
        problem(await service.post("/api/auth/dev-sign-in", {"user": "bob"}, None), 404)
        assert "/api/auth/dev-sign-in" not in (await service.http.get("/api/openapi.json")).text


async def test_unknown_paths_and_methods_are_problems(service: Service) -> None:
    problem(await service.http.get("/nowhere"), 404, "not_found")
    problem(await service.http.get("/static/../main.py"), 404)
    answer = await service.http.get(WRITE)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_every_answer_forbids_storing_and_sniffing(service: Service) -> None:
    paths = ["/api/docs", "/api/openapi.json", "/healthz", "/readyz", "/metrics", "/nowhere"]
    paths += ["/static/docs.js", "/static/docs.css", "/static/icon.svg"]
    for path in paths:
        answer = await service.http.get(path)
        assert answer.status_code == (404 if path == "/nowhere" else 200), path
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest_asyncio.fixture
async def friendly(gateway_dsn: str) -> AsyncIterator[Service]:
    async with Service(settings_for(gateway_dsn, allowed_origins="https://friend.example")) as made:
        await made.ready()
        yield made


async def test_listed_origins_may_call_from_the_browser(friendly: Service) -> None:
    for origin, allowed in (("https://friend.example", True), ("https://evil.example", False)):
        asked = {"origin": origin, "access-control-request-method": "POST"}
        answer = await friendly.http.options(QUERY, headers=asked)
        assert ("access-control-allow-origin" in answer.headers) is allowed
    cookie = f"rowcast_session={token()}"
    found = await friendly.post(
        QUERY, {"table": "boards"}, None, cookie=cookie, origin="https://friend.example"
    )
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] == "https://friend.example"
    assert found.headers["access-control-expose-headers"] == "Retry-After"


async def test_anonymous_callers_are_served_where_allowed(gateway_dsn: str) -> None:
    async with Service(settings_for(gateway_dsn, allow_anon=True)) as service:
        answer = await service.post(QUERY, {"table": "boards"}, None)
        assert answer.status_code in (200, 403)
        assert (answer.json().get("ids") or []) == []


async def test_an_unexpected_error_says_a_log_id_and_logs_no_data(
    service: Service, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    run(
        "create or replace function sync.gateway_query(p_claims text, p_body text,"
        " p_schema bigint default null) returns text"
        " language plpgsql as $$ begin raise exception 'secret of %%', p_body; end $$"
    )
    answer = await service.post(QUERY, {"table": "hidden-word"})
    body = problem(answer, 500, "internal")
    assert set(body) == {"type", "title", "status", "code", "logId"}
    assert body["logId"] in caplog.text
    assert "hidden-word" not in caplog.text
    assert "secret" not in caplog.text


async def test_readiness_and_metrics(service: Service) -> None:
    assert (await service.http.get("/healthz")).json() == {"status": "ok"}
    ready = await service.http.get("/readyz")
    assert ready.status_code == 200
    assert all(ready.json().values())
    await service.post(QUERY, "{}", None)
    text = (await service.http.get("/metrics")).text
    assert 'rowcast_http_requests_total{route="/readyz",status="200"}' in text
    assert 'rowcast_refusals_total{code="unauthorized"}' in text
    for line in text.splitlines():
        assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) >= 0
