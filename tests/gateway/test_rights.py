"""What is kept of what readers see, by the order in which answers come."""

import pytest

from app.db import Lane
from app.delivery import send_stale
from app.hub import Hub
from app.rights import Rights, Views


@pytest.mark.parametrize("found_after", [True, False])
async def test_what_a_subscription_found_is_not_forgotten_for_an_older_answer(
    found_after: bool,
) -> None:
    """He is told to read again, PostgreSQL is asked what he sees, and only then does he gain a row
    and subscribe. The first answer, which comes last, must not make him one who holds nothing.
    """
    hub = Hub()
    rights = Rights(hub, Lane("", "unused", 1))
    socket = hub.join("a", None, "authenticated", "a", lambda _: None, lambda: None)
    hub.subscribe(socket, ["tasks"])
    reader = socket.reader
    send_stale(socket, ["tasks"], "access")
    taken, _ = rights.take_unproven()
    assert taken == {reader: {"tasks"}}
    if found_after:
        rights.found(socket, {"tasks": ["A"]})
    older: Views = {reader: {"tasks": ()}}
    rights.keep_views(older)
    rights.stop_assuming(older)
    assert reader.views["tasks"].evidence is found_after
    assert rights.take_unproven()[0] == ({reader: {"tasks"}} if found_after else {})
