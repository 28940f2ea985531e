"""Mails of accounts from the route that causes them to a mailbox, and back: gateway, `rowcast
worker` and an SMTP server, each in a process of its own but for the gateway.
"""

import re
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.gateway.conftest import ALICE, DEADLINE_SECONDS, SECRET, Service, settings_for, until
from tests.gateway.test_accounts import DEMO, invitation
from tests.postgres import Database
from tests.worker.office import PASSWORD, USER, Office, office
from tests.worker.process import working

PUBLIC = "https://app.example"
HER = "dora@example.org"


async def arrived(mails: Office, subject: str, to: str = HER) -> str:
    """The token of the link in that mail, or the link."""

    def found() -> list[EmailMessage]:
        return [m for m in mails.mails() if (m["Subject"], m["To"]) == (subject, to)]

    await until(lambda: bool(found()))
    (mail,) = found()
    links: set[str] = set()
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        links.update(re.findall(r"https://app\.example/[^\s\"<]+", body.get_content()))
    (link,) = links
    return link.rpartition("#token=")[2]


async def test_sign_up_reset_and_invitation_arrive(db: Database, tmp_path: Path) -> None:
    settings = settings_for(
        db.dsn("rowcast_gateway"), accounts=True, public_url=PUBLIC, dev_sign_in=False
    )
    with (
        office(tmp_path) as mails,
        working(
            db,
            ROWCAST_SMTP_URL=f"smtp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{mails.port}",
            ROWCAST_MAIL_FROM="Rowcast <app@app.example>",
            ROWCAST_JWT_SECRET=SECRET,
            ROWCAST_PUBLIC_URL=PUBLIC,
            SSL_CERT_FILE=str(tmp_path / "tls.pem"),
        ) as worker,
    ):
        async with (
            Service(settings) as site,
            httpx.AsyncClient(
                base_url=f"{site.url}/api/auth", timeout=30, headers={"origin": site.url}
            ) as http,
        ):

            async def post(path: str, **body: str) -> int:
                answer = await http.post(path, json=body)
                return answer.status_code

            await site.ready()
            await until(lambda: "worker ready" in worker.log, 2 * DEADLINE_SECONDS)
            assert await post("/sign-up", email=HER, password="correct horse battery") == 202
            token = await arrived(mails, "Confirm your address")
            assert await post("/verify", token=token, password="correct horse battery") == 200
            assert await post("/request-reset", email=HER) == 202
            token = await arrived(mails, "Choose another password")
            assert await post("/reset", token=token, password="a new one it is") == 200
            assert await post("/sign-in", email=HER, password="a new one it is") == 200
            await site.write(invitation("erik@example.org", DEMO), user=ALICE)
            link = await arrived(mails, "You are invited", "erik@example.org")
            assert link == PUBLIC + "/account/invitations"
            await until(lambda: len(mails.mails()) == 4)  # "Your password was changed"
        assert worker.stop() == 0
        assert PASSWORD not in worker.log
        assert token not in worker.log
