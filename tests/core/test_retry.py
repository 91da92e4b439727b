"""Retrying: what is tried again, how long is waited, and what is never shown."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from huggingface_hub.errors import HfHubHTTPError

from langsamp.core.retry import HubError, UnreachableError, attempt, is_transient, redact


class Response:
    """As much of an answer as the errors of both clients need."""

    def __init__(self, status, **headers):
        self.status_code, self.headers, self.request, self.text = status, headers, None, ""


def failing(status, times, **headers):
    """A call that is answered with a status a few times, then works."""
    left = [times]

    def call():
        if left[0]:
            left[0] -= 1
            raise HfHubHTTPError("no", response=Response(status, **headers))
        return "done"

    return call


def test_waits_double(waits):
    assert attempt(failing(503, 4), "asking") == "done"
    assert waits == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "30"}, 30), ({"RateLimit": '"api";r=0;t=55'}, 55), ({"Retry-After": "nonsense"}, 1), ({}, 1)],
)
def test_waits_as_the_hub_asks(waits, headers, seconds):
    assert attempt(failing(429, 1, **headers), "asking") == "done"
    assert waits == [seconds]


def test_waits_until_a_date(waits):
    attempt(failing(503, 1, **{"Retry-After": formatdate(time.time() + 40, usegmt=True)}), "asking")
    assert 38 <= waits[0] <= 40


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_wrong_clock_does_not_change_the_wait(waits, hours):
    theirs = time.time() + hours * 3600
    dates = {"Date": formatdate(theirs, usegmt=True), "Retry-After": formatdate(theirs + 40, usegmt=True)}
    attempt(failing(503, 1, **dates), "asking")
    assert waits == [40]


def test_does_not_wait_for_an_hour(waits):
    with pytest.raises(UnreachableError, match=r"failed once .*asks to wait 3600 s"):
        attempt(failing(429, 1, **{"Retry-After": "3600"}), "asking")
    assert waits == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "HF_TOKEN"), (403, "write access"), (404, "no such"), (413, "max_shard_size"), (400, "asking failed: no")],
)
def test_other_answers_are_not_tried_again(waits, status, words):
    with pytest.raises(HubError, match=words) as raised:
        attempt(failing(status, 1), "asking")
    assert not isinstance(raised.value, UnreachableError)
    assert waits == []


def test_errors_of_the_caller_are_not_network_faults(waits):
    def call():
        raise KeyError("x")

    with pytest.raises(HubError, match="asking failed: 'x'"):
        attempt(call, "asking")
    assert not is_transient(FileNotFoundError("x"))


@pytest.mark.parametrize("text", ["Bearer hf_abcDEF123456789", "token=my-own-token;", "api_org_abcDEF123456789"])
def test_tokens_are_never_shown(text):
    shown = redact(text, "my-own-token")
    assert "hf_***" in shown
    assert "abcDEF" not in shown
    assert "my-own" not in shown


def test_names_that_look_a_little_like_tokens_stay():
    assert redact("hf_hub_download of hf_hub") == "hf_hub_download of hf_hub"
