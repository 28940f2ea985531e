"""The OpenAPI document says what the routes do."""

from typing import Any

import pytest
from starlette.routing import Route

from app import accounts, openapi
from app.gateway import Gateway
from app.routes import routes
from tests.gateway.conftest import Service, settings_for


@pytest.fixture
def document() -> dict[str, Any]:
    return openapi.document()


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(references(inner) for inner in value))
    return set()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {name.rsplit("/", 1)[1] for name in references(document)} <= set(schemas)


def test_every_api_route_is_described(document: dict[str, Any]) -> None:
    settings = settings_for("host=nowhere", accounts=True, public_url="http://app.example")
    gateway = Gateway(settings)
    table = [*routes(gateway), *accounts.routes(gateway)]
    served = {route.path for route in table if isinstance(route, Route)}
    pages = {"/", "/api/docs", "/api/openapi.json", "/api/auth/dev-mails"}
    assert served - pages == set(document["paths"]) - {"/api/realtime/socket"}


def test_every_operation_is_named_and_answers(document: dict[str, Any]) -> None:
    operations = [o for methods in document["paths"].values() for o in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["responses"] for operation in operations)


def test_frames_are_told_apart_by_type(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for side in ("ClientFrame", "ServerFrame"):
        for reference in schemas[side]["oneOf"]:
            frame = schemas[reference["$ref"].rsplit("/", 1)[1]]
            assert frame["properties"]["type"]["const"]


def test_wire_names_are_camel_case(document: dict[str, Any]) -> None:
    names = {
        name
        for schema in document["components"]["schemas"].values()
        for name in schema.get("properties", {})
    }
    assert not {name for name in names if "_" in name}
    assert {"txId", "recordMap", "serverTime", "schema", "from"} <= names


async def test_what_is_not_turned_on_is_not_described(service: Service, gateway_dsn: str) -> None:
    paths = (await service.http.get("/api/openapi.json")).json()["paths"]
    assert "/api/realtime/write" in paths
    assert "/api/realtime/socket" in paths
    assert not any(path.startswith("/api/auth/sign") for path in paths)
    settings = settings_for(gateway_dsn, accounts=True, public_url="http://app.example")
    async with Service(settings) as other:
        assert "/api/auth/sign-in" in (await other.http.get("/api/openapi.json")).json()["paths"]
