"""From a local path or URI to a pyarrow filesystem that bears a server which is away for a while."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyarrow import fs

from distspectral.errors import ConfigError, MissingDependencyError, first_line
from distspectral.secrets import redacted

ATTEMPTS = 8
"""Tries of one request to S3. The pauses between them double, with jitter, up to 20 s: about a minute together."""

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
GCS_RETRY_S = 60

FIRST_ATTEMPTS, FIRST_CONNECT_TIMEOUT_S, FIRST_GCS_RETRY_S = 3, 3.0, 8
"""For a store that has answered nothing yet: whoever mistypes an endpoint hears of it in some ten seconds."""
SILENCE = re.compile(r"Could(n't| not) (connect|resolve)|Failed to connect|Connection timed out|Retry policy exhausted")
"""What pyarrow says where nobody listens. An endpoint that answers late, or with an error, is not meant."""

ENCODED = ("s3", "gs", "abfs", "abfss", "hdfs", "file")
"""Schemes whose paths Arrow takes percent-encoded; fsspec takes them as they are."""

LOOKS = (
    "places are local paths, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, hdfs://HOST:PORT/FOLDER, file:///FOLDER, "
    "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER, hf://datasets/OWNER/NAME and what fsspec knows, such as "
    "fsspec+sftp://; download what lies elsewhere"
)

SECRET_HINTS = {
    "s3": "by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "by GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "by AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    "abfss": "by AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    "hf": "by HF_TOKEN",
}
"""Where a secret belongs, by scheme."""


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


def split_options(uri: str) -> tuple[str, str]:
    """Return a URI's place and its options, ``?region=...`` or nothing; a local path has none.

    A question mark that no ``name=value`` follows belongs to the place.
    """
    found = re.search(r"\?[A-Za-z_]+=.*$", uri) if "://" in uri else None
    return (uri, "") if found is None else (uri[: found.start()], found[0])


def absolute(uri: str) -> str:
    """Return a local path as other processes can name it, absolute; a URI as it is.

    Raises:
        ConfigError: the path begins with the home directory of a user that there is not.
    """
    try:
        return uri if "://" in uri else str(Path(uri).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"{uri}: there is no user {uri.partition('/')[0]}; write the path without ~") from error


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return (filesystem, path) of a local path or a URI; local paths become absolute.

    A URI's path may be written as it is, or percent-encoded: ``%20`` is a blank, and ``%25`` a percent sign.

    Raises:
        ConfigError: the URI carries a secret, which would be written into configs and logs, or names no filesystem.
        MissingDependencyError: what reads such a URI is not installed.
    """
    if "://" not in uri:
        return fs.LocalFileSystem(), absolute(uri)
    scheme = uri.partition("://")[0]
    if redacted(uri) != uri:
        hint = SECRET_HINTS.get(scheme, "by the environment")
        raise ConfigError(f"{scheme}://...: carries a secret; take it out and give it {hint}, or use the machine's own")
    place, options = split_options(uri)
    if scheme in ENCODED:
        authority, slash, path = place.removeprefix(f"{scheme}://").partition("/")
        path = quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", path), safe="/%:@!$&'()*+,;=~")
        place = f"{scheme}://{authority}{slash}{path}"
    if scheme == "gs" and "retry_limit_seconds=" not in options:  # Arrow's own is a quarter of an hour
        options += f"{'&' if options else '?'}retry_limit_seconds={GCS_RETRY_S}"
    try:
        filesystem, path = fs.FileSystem.from_uri(place + options)
    except ImportError as error:
        name = "huggingface_hub" if scheme == "hf" else "the library for it"
        raise MissingDependencyError(
            f"{uri}: {name} is not installed ({first_line(error)}); install it, or download the files first"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{uri}: is no place that can be used ({first_line(error)}); {LOOKS}") from error
    except OSError as error:
        if "libjvm" in str(error) or "libhdfs" in str(error):
            raise MissingDependencyError(f"{uri}: needs Hadoop and Java ({first_line(error)})") from error
        raise
    if type(filesystem) is fs.S3FileSystem:
        filesystem = PatientS3FileSystem(**_options(filesystem))
    return filesystem, path


def require_answer(uri: str) -> None:
    """Refuse a store at which nobody listens, sooner than the many tries of a run do.

    Raises:
        OSError: just that.
        ConfigError, MissingDependencyError: see :func:`resolve`.
    """
    filesystem, path = resolve(uri)
    place, options = split_options(uri)
    if isinstance(filesystem, PatientS3FileSystem):
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=FIRST_ATTEMPTS)
        brief = {"connect_timeout": FIRST_CONNECT_TIMEOUT_S, "retry_strategy": strategy}
        filesystem = fs.S3FileSystem(**{**_options(filesystem), **brief})
    elif isinstance(filesystem, fs.GcsFileSystem):
        options = f"{options}{'&' if options else '?'}retry_limit_seconds={FIRST_GCS_RETRY_S}"
        filesystem, path = resolve(place + options)
    else:
        return
    try:
        filesystem.get_file_info(path)
    except OSError as error:  # anything else is told by who asks next
        if SILENCE.search(str(error)):
            raise


def join(uri: str, name: str) -> str:
    """Return the place ``name`` below a local path or a URI; a URI's options (``?region=...``) stay at its end."""
    place, options = split_options(uri)
    return f"{place.rstrip('/')}/{name}{options}"
