"""How much one user or one address may ask for. Pure bookkeeping in bounded memory, no I/O.

Each gateway counts for itself: with two of them behind a balancer a user has twice as much.
"""

import ipaddress
import math
from collections import Counter, OrderedDict
from functools import lru_cache
from typing import Final

from .config import Settings
from .errors import Problem

MAX_BUCKETS: Final = 50_000
BURST_SECONDS: Final = 5.0  # of the rate may be asked for at once
FULL_SECONDS: Final = 30.0  # when to try again where all places are taken


class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` of them kept."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float) -> float:
        """Takes a token: 0. Where there is none, the seconds until there is, and takes nothing."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            return (1 - self._level) / self._rate
        self._level -= 1
        return 0.0


class Buckets:
    """A bucket for each name. The one not used for longest is forgotten: it is most likely full."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, now: float) -> float:
        """As of one bucket; 0 where there is no limit."""
        if not self._rate:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.popitem(last=False)
            burst = max(1.0, self._rate * BURST_SECONDS)
            bucket = self._buckets[name] = Bucket(self._rate, burst, now)
        else:
            self._buckets.move_to_end(name)
        return bucket.take(now)


class Places:
    """So many places for each name."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._taken)

    def enter(self, name: str) -> bool:
        """Takes a place, if one is free."""
        if self._most and self._taken[name] >= self._most:
            return False
        self._taken[name] += 1
        return True

    def leave(self, name: str) -> None:
        """Gives the place back."""
        self._taken[name] -= 1
        if not self._taken[name]:
            del self._taken[name]


class Limits:
    """The limits of one gateway, as its settings say; 0 means none. Who has no name counts by his
    address alone.
    """

    def __init__(self, settings: Settings) -> None:
        self.user_sockets = Places(settings.user_sockets)
        self.address_sockets = Places(settings.address_sockets)
        self.user_requests = Buckets(settings.user_requests_per_second)
        self.address_requests = Buckets(settings.address_requests_per_second)
        self.user_subscriptions = Buckets(settings.user_subscriptions_per_second)

    def check_address(self, address: str, now: float) -> None:
        """Counts a request from an address. Raises 429."""
        if wait := self.address_requests.take(address, now):
            raise rate_limited(wait)

    def check_user(self, user_id: str | None, now: float) -> None:
        """Counts a request of a user. Raises 429."""
        if user_id is not None and (wait := self.user_requests.take(user_id, now)):
            raise rate_limited(wait)


def rate_limited(seconds: float) -> Problem:
    """429: the same is worth sending again after this long."""
    return Problem(
        429, "rate_limited", "Too many requests; slow down", retryAfter=max(1, math.ceil(seconds))
    )


@lru_cache(maxsize=4096)
def address_of(host: str | None) -> str:
    """What counts as one address: an IPv6 customer has a whole /64."""
    try:
        found = ipaddress.ip_address(host or "")
    except ValueError:
        return host or ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found.packed[:8] + bytes(8), 64)))
    return str(found)


def subscriber_of(user_id: str | None, address: str) -> str:
    """In whose name reads and subscriptions count: a user's, or an address where nobody is signed
    in.
    """
    return f"user {user_id}" if user_id is not None else f"address {address}"
