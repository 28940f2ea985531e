"""The reference names every route, frame, code and close code there is."""

import re
from pathlib import Path

from starlette.routing import Route

from app import openapi, protocol
from app.gateway import Gateway
from app.routes import routes
from tests.gateway.conftest import settings_for

ROOT = Path(__file__).parents[2]
HTTP = (ROOT / "docs/reference/http.md").read_text()
ACCOUNTS = (ROOT / "docs/reference/accounts.md").read_text()
SOCKET = (ROOT / "docs/reference/socket.md").read_text()


def test_every_route_is_in_the_reference() -> None:
    for route in routes(Gateway(settings_for("host=nowhere"))):
        if isinstance(route, Route):
            method = "POST" if "POST" in (route.methods or ()) else "GET"
            assert f"`{method} {route.path}`" in HTTP


def test_every_frame_is_in_the_reference() -> None:
    for model in (*openapi.CLIENT_FRAMES, *openapi.SERVER_FRAMES):
        kind = model.model_fields["type"].annotation.__args__[0]  # type: ignore[union-attr]
        assert re.search(rf'"{kind}"|`{kind}`', SOCKET), kind


def test_every_close_code_is_in_the_reference() -> None:
    codes = [value for value in vars(protocol).values() if isinstance(value, int)]
    for code in {code for code in codes if 1000 < code < 1015 or 4400 <= code < 4500} | {4408}:
        assert f"| {code} |" in SOCKET


def test_every_code_the_gateway_refuses_with_is_in_the_reference() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "app").glob("*.py")))
    codes = set(re.findall(r'Problem\(\s*\d+,\s*"(\w+)"', text))
    codes |= set(re.findall(r'code="(\w+)"', text)) | {"unauthorized", "expired"}
    assert {code for code in codes if f"`{code}`" not in HTTP + ACCOUNTS + SOCKET} == set()
