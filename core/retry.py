"""What to do when the Hub does not answer as it should: try again, say what is wrong, and never show a token.

Loading by name, push and pull send every request through `attempt`; the clients themselves retry some requests and not
others, and which ones differs between huggingface_hub 0.36 and 2.x.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from langsamp.core.files import DISK_FULL, READ_ONLY

logger = logging.getLogger(__name__)
T = TypeVar("T")

TRIES = 5
LONGEST_WAIT = 310.0  # seconds; the Hub counts requests in windows of five minutes
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TRANSPORTS = {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2"}  # whichever the client is built on
_NOT_TRANSPORT = ("HTTPError", "HTTPStatusError", "InvalidURL", "UnsupportedProtocol", "MissingSchema", "InvalidSchema")
_NETWORK = re.compile(r"(?i)connection|timed? ?out|reset by peer|broken pipe|request error|temporarily")
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}")


class HubError(RuntimeError):
    """The Hub could not be used as asked; the message says what is wrong and what to do, and holds no token."""


class UnreachableError(HubError):
    """The Hub did not answer, or only with faults that pass; the same call may succeed later."""


class ConflictError(HubError):
    """The branch is not where this push expects it; nothing was written."""


class TagTakenError(ConflictError):
    """The tag names another commit already; nothing was written."""


class IncompletePushError(HubError):
    """What is on the Hub does not agree with its manifest: a push that was not finished, or files changed by hand."""


def attempt(call: Callable[[], T], what: str, token: str | None = None, tries: int = TRIES) -> T:
    """Call until it succeeds: again after 429, 5xx, timeouts and broken connections, waiting as the Hub asks.

    Args:
        call: the request; it must be safe to repeat.
        what: what is being done, for messages ("uploading to user/x").
        token: a token that must not appear in any message, besides the one the client has stored.
        tries: how often to call at most.

    Raises:
        HubError: it still fails, or fails in a way that trying again does not mend.
    """
    for number in range(1, tries + 1):
        try:
            return call()
        except HubError:
            raise
        except Exception as error:
            wait = _wait(error, number)
            if not is_transient(error):
                raise translate(error, what, token) from None
            if number == tries or wait > LONGEST_WAIT:
                raise _gave_up(error, what, token, number, wait) from None
            reason = redact(_first_line(error), token)
            logger.warning("%s: %s; trying again in %.0f s (%d of %d).", what, reason, wait, number + 1, tries)
            time.sleep(wait)
    raise AssertionError("unreachable")


def from_hub(call: Callable[[], T], name: str) -> T:
    """`attempt` for what was named and is no folder, with few tries: a mistyped name should not take a minute.

    Raises:
        FileNotFoundError: it cannot be had; the message says why.
    """
    try:
        return attempt(call, f"reading {name}", tries=3)
    except HubError as error:
        raise not_here(name, error) from None


def not_here(name: str, error: HubError) -> FileNotFoundError:
    """The error for a name that is no folder, and that the Hub does not give either."""
    return FileNotFoundError(f"there is no folder {name!r} here, and it cannot be had from the Hub: {error}")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: rate limits, server faults, timeouts, broken connections."""
    for cause in _chain(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return False
        status = status_of(cause)
        if status is not None:
            return status in _TRANSIENT_STATUS
        if isinstance(cause, (ConnectionError, TimeoutError)) or "Consistency check failed" in str(cause):
            return True
        kind = type(cause)
        if kind is RuntimeError and _NETWORK.search(str(cause)):  # all that the compiled transfer library (Xet) tells
            return True
        if kind.__module__.split(".")[0] in _TRANSPORTS and kind.__name__ not in _NOT_TRANSPORT:
            return True
    return False


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries, if any."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return int(status) if status is not None else None


def redact(text: str, token: str | None = None) -> str:
    """Replace access tokens by ``hf_***``: anything of their form, and the tokens in use whatever their form."""
    for known in (token, get_token()):
        if known:
            text = text.replace(known, "hf_***")
    return _TOKEN.sub("hf_***", text)


def translate(error: BaseException, what: str, token: str | None = None) -> HubError:
    """The error of a client as one sentence with a remedy."""
    statuses = [status for cause in _chain(error) if (status := status_of(cause)) is not None]
    status = statuses[0] if statuses else None
    missing = next((cause for cause in _chain(error) if isinstance(cause, RepositoryNotFoundError)), None)
    if isinstance(missing, GatedRepoError):
        remedy: str | None = _gated(missing)
    else:
        remedy = _REMEDY.get(404 if missing else status or 0)
    if any(getattr(cause, "errno", None) in DISK_FULL for cause in _chain(error)):
        return HubError(f"{what} failed: the disk is full; make room and run the same command again.")
    if refused := _not_writable(error):
        return HubError(
            f"{what} failed: the cache does not hold all of it and cannot be written ({refused}); set HF_HOME, or "
            "HF_HUB_CACHE or HF_DATASETS_CACHE, to a folder of yours, or have somebody fetch it who may write there."
        )
    if remedy is None:
        return HubError(redact(f"{what} failed: {_first_line(error)}", token))
    return HubError(f"{what} failed: {remedy}")


def _not_writable(error: BaseException) -> str | None:
    """The path of the client's cache that could not be written, if that is what went wrong."""
    for cause in _chain(error):
        path = str(getattr(cause, "filename", None) or "")
        if getattr(cause, "errno", None) in READ_ONLY and path.startswith((constants.HF_HUB_CACHE, constants.HF_HOME)):
            return path
    return None


_REMEDY = {
    401: "the Hub does not accept the access token (401): it is missing, expired or revoked; put a valid one into the "
    "environment variable HF_TOKEN, or run `hf auth login`.",
    403: "the access token may not do this (403): it lacks read access, or write access for a push, to the repository "
    "(HF_TOKEN, `hf auth login`).",
    404: "there is no such repository or revision, or the token may not see it (404); check the name and HF_TOKEN.",
    413: "the Hub says that a file is too large (413); save with a smaller max_shard_size.",
    507: "the storage of the account on the Hub is full (507).",
}


def _gated(error: GatedRepoError) -> str:
    """Where to ask for access to a gated repository: the address of its page, read off the one that was refused."""
    url = getattr(getattr(error, "response", None), "url", None)
    page = re.match(r"(https?://[^/]+/)(?:api/models/|api/)?((?:datasets/)?[^/]+/[^/?]+)", str(url))
    where = f" on {page[1]}{page[2]}" if page else ""
    return (
        f"the repository is gated: accept its conditions{where} in a browser, logged in as the owner of the access "
        "token (HF_TOKEN, `hf auth login`), and run the same command again."
    )


def _gave_up(error: BaseException, what: str, token: str | None, tries: int, wait: float) -> UnreachableError:
    broken = re.search(r"\[Errno -?\d+\] ([^\"')\]\n]+)", "\n".join(str(cause) for cause in _chain(error)))
    reason = broken[1] if broken else redact(_first_line(error), token).rstrip(".")
    asked = f", and the Hub asks to wait {wait:.0f} s" if wait > LONGEST_WAIT else ""
    times = "once" if tries == 1 else f"{tries} times"
    return UnreachableError(
        f"{what} failed {times} ({reason}{asked}); run the same command again later, what has arrived is kept."
    )


def _wait(error: BaseException, number: int) -> float:
    """Seconds to wait before the next try: what the answer asks for, else 1, 2, 4, 8."""
    for cause in _chain(error):
        headers = getattr(getattr(cause, "response", None), "headers", None) or {}
        asked = headers.get("Retry-After")
        if asked:
            return _seconds(str(asked), headers.get("Date"))
        window = re.search(r"\bt=(\d+)", str(headers.get("RateLimit") or ""))  # the Hub: "api";r=0;t=55
        if window and status_of(cause) == 429:
            return float(window[1])
    return float(2 ** (number - 1))


def _seconds(header: str, now: str | None) -> float:
    """Retry-After in either of its forms (RFC 9110, 10.2.3): seconds, or a date, by the clock of who sent it."""
    try:
        if header.strip().isdigit():
            return float(header)
        here = parsedate_to_datetime(now).timestamp() if now else time.time()
        return max(0.0, parsedate_to_datetime(header).timestamp() - here)
    except (ValueError, TypeError):
        return 1.0


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it: the clients wrap a broken connection into "not in the cache"."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    several = isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError)  # such as faults of the card
    message = (" ".join(lines) if several else lines[0]) if lines else type(error).__name__
    if isinstance(error, HfHubHTTPError) and error.server_message:
        message = f"{message} {error.server_message}" if error.server_message not in message else message
    return message if len(message) < 300 else message[:300] + "..."
