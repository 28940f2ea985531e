"""Pages for people: the built example apps, or one that says how to come by them.

Asked for what no route matches. An address of the apps, `/tasks/...`, is no file: a browser that
opens it gets the apps, and for everybody else it does not exist.
"""

from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
# A name below assets/ changes with its contents; whatever else there is has to be asked for again.
IMMUTABLE: Final = "public, max-age=31536000, immutable"
REVALIDATED: Final = "no-cache"
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
        if self._folder is None or not (self._folder / "index.html").is_file():
            return _instead(path, scope)
        try:
            found = await super().get_response(path, scope)
        except HTTPException:
            if not _is_page(path, scope):
                raise HTTPException(404) from None
            found = await super().get_response("index.html", scope)
        found.headers["Cache-Control"] = IMMUTABLE if path.startswith("assets/") else REVALIDATED
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


def _is_page(path: str, scope: Scope) -> bool:
    opened = "text/html" in Headers(scope=scope).get("accept", "")
    return path == "." or (opened and path.split("/", maxsplit=1)[0] not in NO_PAGES)
