"""What a secret looks like, in one place: for whatever is printed, logged or written, and for what must not carry one.

A URI's user and password, a key in its options, a value under a name such as ``api_key``, a bearer token. What merely
looks like one is hidden too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"

LAST_WORDS = frozenset(
    (
        *("auth", "authorization", "credential", "credentials", "key", "keys", "pwd", "sas", "sig", "signature"),
        *("token", "accesskey", "accountkey", "apikey", "privatekey", "secretkey"),
    )
)
"""With which the name of a secret ends: ``api_key``, ``X-Amz-Signature``, ``sessionToken``."""
WORDS = frozenset(("passphrase", "passwd", "password", "secret", "secrets"))
"""Anywhere in its name."""

_SPLIT = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_USER = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)"
    r"(?:(?P<key>[^\s/@:?#'\"<>]*):(?!\d{1,5}(?:[/?#\s'\"]|$))[^\s'\"<>]*"  # user:password, which may hold a slash
    r"|(?<=\bs3://)[^\s/@:?#'\"<>]*:[^\s'\"<>]*"  # where no port can stand
    r"|(?<=http://)[^\s/@'\"<>]+|(?<=https://)[^\s/@'\"<>]+)@",  # a token alone
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"(?<![\w.-])(?P<name>[\w-]+(?:\.[\w-]+)*)(?P<sign>[\"']?=[\"']?|[\"']: ?[\"']?)(?P<value>[^\s&;,'\"}\])<>]+)"
)
_BEARER = re.compile(r"\b(Bearer|Basic) [\w.~+/=-]{8,}", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether what stands under a name is a secret; ``n_tokens``, ``tokenizer`` and ``key_dim`` are none."""
    words = [word.lower() for word in _SPLIT.findall(name) if not word.isdecimal()]
    return bool(words) and (words[-1] in LAST_WORDS or not WORDS.isdisjoint(words))


def redacted(text: str) -> str:
    """Return a text, such as a message or a URI, without the secrets in it."""
    text = _USER.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _VALUE.sub(_without_value, text)
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def redacted_values(values: Any) -> Any:
    """Return nested plain values without the secrets in their texts, nor any value under a name that says so."""
    if isinstance(values, Mapping):
        return {
            name: HIDDEN if value not in (None, "") and is_secret_name(str(name)) else redacted_values(value)
            for name, value in values.items()
        }
    if isinstance(values, list | tuple):
        return type(values)(map(redacted_values, values))
    return redacted(values) if isinstance(values, str) else values


def secret_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested values under which a secret stands."""
    for name, value in values.items():
        if isinstance(value, Mapping) and not is_secret_name(str(name)):
            yield from secret_keys(value, f"{prefix}{name}.")
        elif redacted_values({name: value}) != {name: value}:
            yield f"{prefix}{name}"


def _without_value(found: re.Match[str]) -> str:
    name = found["name"].rpartition(".")[2]
    is_word = name.lower() in ("key", "keys") and found.string[found.start() - 1 : found.start()] not in (
        "?",
        "&",
        "'",
        '"',
    )
    return found[0] if is_word or not is_secret_name(name) else f"{found['name']}{found['sign']}{HIDDEN}"
