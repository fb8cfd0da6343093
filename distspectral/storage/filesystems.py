"""From a local path or URI to a pyarrow filesystem that bears a server which is away for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from distspectral.errors import ConfigError

ATTEMPTS = 8
"""Tries of one request to S3. The pauses between them double, with jitter, up to 20 s: about a minute together."""

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0


class PatientS3FileSystem(fs.S3FileSystem):  # type: ignore[misc]
    """S3 with more than pyarrow's three attempts, after pickling too (pyarrow's own forgets its strategy).

    Args:
        options: keyword arguments of :class:`pyarrow.fs.S3FileSystem`.
    """

    def __init__(self, **options: Any) -> None:
        timeouts = {"connect_timeout": CONNECT_TIMEOUT_S, "request_timeout": REQUEST_TIMEOUT_S}
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
        super().__init__(**{**options, **timeouts, "retry_strategy": strategy})

    def __reduce__(self) -> tuple[Any, ...]:
        return _patient, (_options(self),)


def _patient(options: dict[str, Any]) -> PatientS3FileSystem:
    return PatientS3FileSystem(**options)


def _options(filesystem: fs.S3FileSystem) -> dict[str, Any]:
    """Return what would make the filesystem again: what pyarrow itself pickles."""
    options: dict[str, Any] = fs.S3FileSystem.__reduce__(filesystem)[1][0]
    return options


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return (filesystem, path) of a local path or a URI; local paths become absolute.

    Raises:
        ConfigError: the URI carries a secret, which would be written into configs and logs.
    """
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if urlsplit(uri).password is not None:
        raise ConfigError(
            f"{uri.partition('://')[0]}://...: carries a secret key; take it out and give it by AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or by the machine's own identity"
        )
    filesystem, path = fs.FileSystem.from_uri(uri)
    if type(filesystem) is fs.S3FileSystem:
        filesystem = PatientS3FileSystem(**_options(filesystem))
    return filesystem, path


def join(uri: str, name: str) -> str:
    """Return the place ``name`` below a local path or a URI; a URI's options (``?region=...``) stay at its end."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"
