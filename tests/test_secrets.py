from __future__ import annotations

import pytest

from distspectral.secrets import HIDDEN, is_secret_name, redacted, redacted_values, secret_keys

CARRIERS = [
    "http://user:TOP@host/x",
    "http://TOP@host/x",
    "s3://KEY:TOP/TOP@bucket/folder",
    "s3://KEY:12/TOP@bucket",
    "s3://KEY:TOP+TOP%2FTOP@TOP@bucket: cannot be read",
    "postgresql+psycopg2://user:TOP@host:5432/db",
    "s3://bucket/x?region=eu&access_key=TOP&secret_key=TOP",
    "abfs://c@account.dfs.core.windows.net/x?sv=2024&sig=TOP%3D&se=1",
    "https://host/x?X-Amz-Signature=TOP&X-Amz-Security-Token=TOP",
    "https://maps.host/?key=TOP",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=TOP==",
    "Authorization: Bearer eyTOPTOPTOP",
    "--set mlflow.password=TOP: unknown",
    "network.trunk_options: expected text (got {'api_key': 'TOP', 'n': 1})",
    '{"sessionToken": "TOP"}',
    "first http://a:TOP@b then http://c:TOP@d",
]
HARMLESS = [
    "http://127.0.0.1:8000/a@b",
    "hdfs://namenode:8020/user@dept/x",
    "abfs://container@account.dfs.core.windows.net/x",
    "s3://bucket/a:b@c/d?region=eu&scheme=http",
    "s3://bucket/folder",
    "file:///a:b@c",
    "/data/key=1/part.parquet",
    "--set x: expected section.key=value, such as train.max_steps=500",
    "graph.n_neighbors = 15 needs at least 16",
    "the token is missing: tokens=3, n_tokens=4, tokenizer='bert'",
]


@pytest.mark.parametrize("text", CARRIERS)
def test_no_text_keeps_its_secret(text: str) -> None:
    assert "TOP" in text
    assert "TOP" not in redacted(text)
    assert HIDDEN in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("name", ["api_key", "HF_TOKEN", "sessionToken", "password", "db_password_2", "AWSAccessKey"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["n_tokens", "tokenizer", "key_dim", "n_neighbors", "path", "monkey", ""])
def test_names_of_other_things_are_not(name: str) -> None:
    assert not is_secret_name(name)


def test_nested_values_lose_what_stands_under_such_a_name() -> None:
    values = {"a": {"api_key": 12, "heads": (1, "http://u:TOP@h")}, "b": ["x"], "token": None, "auth": {"any": "TOP"}}
    assert redacted_values(values) == {
        "a": {"api_key": HIDDEN, "heads": (1, f"http://{HIDDEN}@h")},
        "b": ["x"],
        "token": None,
        "auth": HIDDEN,
    }
    assert list(secret_keys(values)) == ["a.api_key", "a.heads", "auth"]
