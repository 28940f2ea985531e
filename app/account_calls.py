"""The SQL functions behind the doors of accounts, called as those of calls.py are."""

from typing import Any, Final, LiteralString

from .db import Lane

DEV_SIGN_IN: Final[LiteralString] = (
    "select (select u.user_id::text from demo_auth.users as u where u.name = %s)"
    " where current_user = session_user"
)

# Accounts. Parameters by name: what is secret in them is a hash.
BEGIN_SIGN_UP: Final[LiteralString] = (
    "select accounts.gateway_begin_sign_up("
    "p_email => %(email)s::text, p_address => %(address)s::text"
    ") where current_user = session_user"
)
SIGN_UP: Final[LiteralString] = (
    "select accounts.gateway_sign_up("
    "p_email => %(email)s::text, p_password_hash => %(password_hash)s::text, "
    "p_link => %(link)s::uuid, p_token_hash => %(token_hash)s::bytea, "
    "p_browser_hash => %(browser_hash)s::bytea, "
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
OPEN_LINK: Final[LiteralString] = (
    "select accounts.gateway_open_link("
    "p_purpose => %(purpose)s::text, p_token_hash => %(token_hash)s::bytea, "
    "p_browser_hash => %(browser_hash)s::bytea, p_address => %(address)s::text"
    ") where current_user = session_user"
)
VERIFY: Final[LiteralString] = (
    "select accounts.gateway_verify("
    "p_token_hash => %(token_hash)s::bytea, p_session => %(session)s::uuid, "
    "p_family_hash => %(family)s::bytea, p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
BEGIN_SIGN_IN: Final[LiteralString] = (
    "select accounts.gateway_begin_sign_in("
    "p_email => %(email)s::text, p_address => %(address)s::text, "
    "p_development => %(development)s::boolean, "
    "p_known => %(known)s::uuid, p_browser => %(browser)s::text"
    ") where current_user = session_user"
)
SIGN_IN: Final[LiteralString] = (
    "select accounts.gateway_sign_in("
    "p_email => %(email)s::text, p_address => %(address)s::text, "
    "p_password_hash => %(password_hash)s::text, p_new_hash => %(new_hash)s::text, "
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea, "
    "p_known => %(known)s::uuid, p_browser => %(browser)s::text"
    ") where current_user = session_user"
)
GUEST: Final[LiteralString] = (
    "select accounts.gateway_guest("
    "p_address => %(address)s::text, p_session => %(session)s::uuid, "
    "p_family_hash => %(family)s::bytea, p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
REFRESH: Final[LiteralString] = (
    "select accounts.gateway_refresh("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea, p_next_hash => %(next_hash)s::bytea, "
    "p_salt => %(salt)s::bytea"
    ") where current_user = session_user"
)
SIGN_OUT: Final[LiteralString] = (
    "select accounts.gateway_sign_out("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_everywhere => %(everywhere)s::boolean"
    ") where current_user = session_user"
)
ME: Final[LiteralString] = (
    "select accounts.gateway_me(p_claims => %(claims)s::text) where current_user = session_user"
)
BEGIN_CHANGE: Final[LiteralString] = (
    "select accounts.gateway_begin_change("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
SET_ANOTHER: Final[LiteralString] = (
    "select accounts.gateway_change_password("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea, p_old_hash => %(old_hash)s::text, "
    "p_new_hash => %(new_hash)s::text"
    ") where current_user = session_user"
)
REQUEST_RESET: Final[LiteralString] = (
    "select accounts.gateway_request_reset("
    "p_email => %(email)s::text, p_link => %(link)s::uuid, "
    "p_token_hash => %(token_hash)s::bytea, p_address => %(address)s::text"
    ") where current_user = session_user"
)
RESET: Final[LiteralString] = (
    "select accounts.gateway_reset("
    "p_token_hash => %(token_hash)s::bytea, p_new_hash => %(new_hash)s::text, "
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
PROVIDER_SIGN_IN: Final[LiteralString] = (
    "select accounts.gateway_provider_sign_in("
    "p_provider => %(provider)s::text, p_issuer => %(issuer)s::text, "
    "p_subject => %(subject)s::text, p_email => %(email)s::text, "
    "p_email_verified => %(email_verified)s::boolean, p_guest => %(guest)s::uuid, "
    "p_address => %(address)s::text, p_session => %(session)s::uuid, "
    "p_family_hash => %(family)s::bytea, p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
GUEST_SESSION: Final[LiteralString] = (
    "select accounts.gateway_guest_session("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
UNSUBSCRIBE: Final[LiteralString] = (
    "select accounts.gateway_unsubscribe(p_user => %(user)s, p_topics => %(topics)s::text[])"
    " where current_user = session_user"
)
MAILS: Final[LiteralString] = (
    "select accounts.mails_due(p_most => %(most)s) where current_user = session_user"
)


async def dev_sign_in(lane: Lane, name: str) -> str | None:
    """The id of a demo user, None if there is no such name. Raises psycopg.Error."""
    user_id: str | None = await lane.value(DEV_SIGN_IN, (name,))
    return user_id


async def account(lane: Lane, statement: LiteralString, **given: Any) -> Any:
    """One of the doors of accounts, its arguments by name. Each may be repeated. Raises
    psycopg.Error.
    """
    return await lane.value(statement, given)
