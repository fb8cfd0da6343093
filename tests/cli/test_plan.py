from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from distspectral.cli.app import EXIT_REFUSED
from distspectral.cli.plan import ladder
from tests.cli.invoking import invoke
from tests.planning.constructed import rates
from tests.runs import write_run


def planned(*arguments: object) -> Result:
    return invoke("plan", *arguments, columns=220)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Constructed rates instead of measured ones; the list holds the sources that were asked about."""
    asked: list[Any] = []

    def stand_in(config: Any, source: Any, folder: str) -> Any:
        asked.append((source.n_rows, source.dim, Path(folder)))
        return rates(dim=source.dim)

    monkeypatch.setattr("distspectral.planning.measure.measure", stand_in)
    return asked


def test_sizes_are_ten_times_apart() -> None:
    assert ladder(1e9) == [1e6, 1e7, 1e8, 1e9]
    assert ladder(7e4) == [7e4]
    assert ladder(2e5) == [2e4, 2e5]


def test_a_plan_shows_times_sizes_formulas_and_what_is_assumed(tmp_path: Path, measured: list[Any]) -> None:
    result = planned(write_run(tmp_path), "--rows", "1e9", "--cluster", "8xH200")
    assert result.exit_code == 0, result.stderr
    for text in ("1e6 rows", "1e9 rows", "limited by", "driver RAM", "N x (4 read + 4 pack) us / 112 cores"):
        assert text in result.stdout
    assert "data sheet, not measured" in result.stdout
    assert "measured here, one core, 40,000 rows x 5" in result.stdout
    assert "VC dimension at least N/10 = 1e+08" in result.stdout
    assert "autoencoder" not in result.stdout  # the config has none
    assert "set ray.workers to auto" in result.stdout  # the config says 1
    assert measured == [(120, 5, tmp_path)]
    assert not (tmp_path / "root").exists()


def test_few_rows_start_no_ray_on_this_machine(tmp_path: Path, measured: list[Any]) -> None:
    path = write_run(tmp_path, ray={})

    def resources(*arguments: object) -> set[str]:
        result = planned(path, "--json", *arguments)
        assert result.exit_code == 0, result.stderr
        return {term["resource"] for term in json.loads(result.stdout)["sizes"][-1]["stages"]["pack"]["terms"]}

    assert "start" not in resources()
    assert "start" in resources("--rows", "1e6")
    assert "start" not in resources("--rows", "1e6", "--set", "ray.enabled=false")
    assert "start" in resources("--set", "ray.workers=2")


def test_json_holds_every_term_and_prices_make_it_money(tmp_path: Path, measured: list[Any]) -> None:
    path = write_run(tmp_path)
    prices = tmp_path / "prices.yaml"
    prices.write_text("node_hour: {cpu: 2}\nstorage_gb_month: 0.5\ncurrency: EUR")
    result = planned(path, "--rows", "1e8", "--cluster", "4x8", "--prices", prices, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    largest = found["sizes"][-1]
    assert largest["rows"] == 1e8
    assert largest["node_hours"] == pytest.approx(4 * largest["seconds"] / 3600)
    assert largest["cost"]["nodes"] == pytest.approx(2 * largest["node_hours"])
    assert largest["cost"]["storage_a_month"] == pytest.approx(0.5 * largest["kept_bytes"] / 1e9)
    assert {term["resource"] for term in largest["stages"]["pack"]["terms"]} >= {"cores", "storage", "network"}
    shown = planned(path, "--rows", "1e8", "--cluster", "4x8", "--prices", prices).stdout
    assert f"{largest['cost']['nodes']:,.2f} EUR for nodes" in shown


def test_another_width_is_measured_on_generated_rows(
    tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distspectral.cli.plan.GENERATED_ROWS", 500)
    assert planned(write_run(tmp_path), "--dim", 12).exit_code == 0
    assert [one[:2] for one in measured] == [(500, 12)]
    assert not measured[0][2].exists()


def test_what_cannot_be_planned_is_refused_before_anything_is_measured(tmp_path: Path, measured: list[Any]) -> None:
    path = write_run(tmp_path)
    for arguments in (("--cluster", "8xabacus"), ("--prices", tmp_path / "absent.yaml")):
        result = planned(path, *arguments)
        assert result.exit_code == EXIT_REFUSED
        assert result.stderr.startswith("error: ")
    assert measured == []
