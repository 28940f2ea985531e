"""Pages for people: the built example apps, or one that says how to come by them.

Asked for what no route matches. An address of the apps, `/tasks/...`, is no file: a browser that
opens it gets the apps, and for everybody else it does not exist.

Files go out as the build has compressed them. Answers of the API never are: in one that holds a
secret and something an attacker has chosen, its length would tell the secret byte by byte (BREACH).
"""

import mimetypes
import re
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.status import HTTP_304_NOT_MODIFIED
from starlette.types import Scope

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
# A name below assets/ changes with its contents; whatever else there is has to be asked for again.
IMMUTABLE: Final = "public, max-age=31536000, immutable"
REVALIDATED: Final = "no-cache"
ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}  # the better one first
_NO_WEIGHT: Final = re.compile(r"q=0(\.0*)?")
NO_PAGES: Final = {"api", "assets", "static"}


class Pages(StaticFiles):
    """The example apps in a folder; without one, or before they are built, the page about it."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(directory=folder, check_dir=False)
        self._folder = folder
        self.config_checked = True  # the folder may come later, by `make demo`

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or the page of the apps. Raises 404."""
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(404)
        if path.endswith(tuple(ENCODINGS.values())):  # a form of a file, no file
            raise HTTPException(404)
        if self._folder is None or not (self._folder / "index.html").is_file():
            return _instead(path, scope)
        try:
            found = await self._compressed(path, scope)
        except HTTPException:
            if not _is_page(path, scope):
                raise HTTPException(404) from None
            found = await self._compressed("index.html", scope)
        found.headers["Cache-Control"] = IMMUTABLE if path.startswith("assets/") else REVALIDATED
        return found

    async def _compressed(self, path: str, scope: Scope) -> Response:
        """A file in the best form that is there and welcome; each has an ETag of its own."""
        path = "index.html" if path == "." else path
        found = await super().get_response(path, scope)
        forms = [name for name, end in ENCODINGS.items() if self.lookup_path(path + end)[1]]
        welcome = _welcome(Headers(scope=scope).get("accept-encoding", ""))
        best = next((name for name in forms if name in welcome), None)
        if best is not None:
            found = await super().get_response(path + ENCODINGS[best], scope)
        if forms:
            found.headers.add_vary_header("Accept-Encoding")
        if best is not None and found.status_code != HTTP_304_NOT_MODIFIED:
            found.headers["Content-Encoding"] = best
            found.headers["Content-Type"] = (
                mimetypes.guess_type(path)[0] or "application/octet-stream"
            )
        return found


def apps_folder() -> Path:
    """Where the built apps are: in a checkout client/demo/dist, in a wheel beside this file."""
    client = HERE.parent / "client" / "demo"
    return client / "dist" if client.is_dir() else HERE / "demo"


def _instead(path: str, scope: Scope) -> Response:
    if path == "sw.js":
        # The service worker of apps that were here: without an answer it would go on showing them.
        return FileResponse(STATIC / "sw-gone.js")
    if not _is_page(path, scope):
        raise HTTPException(404)
    return FileResponse(STATIC / "no-apps.html")


def _welcome(accepted: str) -> set[str]:
    """The encodings somebody takes: all he names, but for those of no weight."""
    names = (part.replace(" ", "").lower().split(";", 1) for part in accepted.split(","))
    return {name for name, *weight in names if not (weight and _NO_WEIGHT.fullmatch(weight[0]))}


def _is_page(path: str, scope: Scope) -> bool:
    opened = "text/html" in Headers(scope=scope).get("accept", "")
    return path == "." or (opened and path.split("/", maxsplit=1)[0] not in NO_PAGES)
