"""The OpenAPI document says what the routes do."""

from typing import Any

import pytest
from starlette.routing import Route

from app import openapi
from app.gateway import Gateway
from app.routes import routes
from tests.gateway.conftest import settings_for


@pytest.fixture
def document() -> dict[str, Any]:
    return openapi.document(dev_sign_in=True)


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
    served = {
        route.path
        for route in routes(Gateway(settings_for("host=nowhere")))
        if isinstance(route, Route)
    }
    pages = {"/", "/api/docs", "/api/openapi.json"}
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
