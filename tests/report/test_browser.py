"""The page in a real browser: rows, tree and table follow one choice, nothing hostile runs, no request leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from distspectral.report.data import ReportData
from distspectral.report.page import render
from tests.report.browser import Tab, chromium, tab

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")

HOSTILE = " ".join(
    (
        "<script>alert(1)</script>",
        "</script><script>alert(2)</script>",
        "<img src=x onerror=alert(3)>",
        "{{7*7}}",
        "\x1b[31mred",
        "javascript:alert(4)",
    )
)
CHOSEN = "[...document.querySelectorAll('#clusters tr.chosen')].map((line) => line.dataset.cluster)"


def in_browser(folder: Path, data: dict[str, Any], visit: Callable[[Tab], Awaitable[None]]) -> None:
    """Open the page of such data, do what is to be done, and see that nothing went wrong."""
    page = folder / "report.html"
    page.write_text(render(ReportData.model_validate(data)), encoding="utf-8")

    async def opened() -> None:
        async with tab(folder / "profile") as own:
            await own.open(page)
            await visit(own)
            assert own.trouble() == []

    asyncio.run(opened())


async def key(own: Tab, name: str, code: int, text: str = "") -> None:
    """Press a key and let it go."""
    for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
        more = {"text": text} if text and kind == "keyDown" else {}
        await own.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more)


async def told(own: Tab, selector: str) -> str:
    text: str = await own.value(f"document.querySelector({json.dumps(selector)}).textContent")
    return text


def test_a_row_a_joint_or_a_line_chooses_the_cluster_everywhere(values: Any, tmp_path: Path) -> None:
    data = values()
    data["rows"] |= {"x": [0.0] * 100 + [1.0] * 100, "y": [0.0] * 100 + [1.0] * 100, "place": "map"}
    data["rows"]["cluster"] = data["rows"]["leaf"] = [3] * 100 + [1] * 100

    async def visit(own: Tab) -> None:
        await own.value("document.getElementById('map').scrollIntoView({block: 'center', behavior: 'instant'})")
        box = await own.value("(({left, bottom, width, height}) => [left, bottom, width, height])"
                              "(document.getElementById('map').getBoundingClientRect())")  # fmt: skip
        side = min(box[2], box[3])
        x, y = box[0] + box[2] / 2 - 0.47 * side, box[1] - box[3] / 2 + 0.47 * side  # the lower left corner
        await own.mouse("mouseMoved", x, y)
        assert not await own.value("document.getElementById('tip').hidden")
        tip = await told(own, "#tip")
        assert "cluster3" in tip
        assert "textwhat row" in tip
        await own.click(x, y)
        assert await own.value(CHOSEN) == ["3"]
        assert (await told(own, "#tree .leaf.chosen text")).startswith("cluster 3")
        assert "exemplar 3" in await told(own, "#chosen")
        await own.value("document.querySelector('#clusters tr[data-cluster=\"1\"] button').click()")
        assert await own.value(CHOSEN) == ["1"]
        await own.value("document.querySelector('#tree .joint').dispatchEvent(new MouseEvent('click'))")
        assert len(await own.value(CHOSEN)) > 1
        await own.mouse("mouseWheel", x, y, deltaX=0, deltaY=-500)
        await own.value("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        assert await own.value("performance.getEntriesByName('map drawn').length") == 1

    in_browser(tmp_path, data, visit)


def test_names_hide_no_cluster_that_is_smaller_than_they_are(values: Any, tmp_path: Path) -> None:
    """Two clusters, each a single point in a corner: one has its name above, the other, at the top, below."""
    data = values()
    data["rows"] |= {"x": [0.0] * 100 + [1.0] * 100, "y": [0.0] * 100 + [1.0] * 100, "place": "map"}
    data["rows"]["cluster"] = data["rows"]["leaf"] = [3] * 100 + [1] * 100
    painted = """(() => {
      const above = document.querySelectorAll('#map > canvas')[2], { width, height } = above;
      const { data } = above.getContext('2d').getImageData(0, 0, width, height), half = 0.47 * Math.min(width, height);
      const painted = (x, y, reach) => [...data.keys()].some((at) => at % 4 === 3 && data[at] > 0
        && Math.abs((at >> 2) % width - x) < reach && Math.abs(Math.floor((at >> 2) / width) - y) < reach);
      return [-1, 1].map((way) => [width / 2 + way * half, height / 2 - way * half])
        .map(([x, y]) => [painted(x, y, 4), painted(x, y, 30)]);
    })()"""

    async def visit(own: Tab) -> None:
        await own.until("performance.getEntriesByName('map drawn').length")
        assert await own.value(painted) == [[False, True]] * 2

    in_browser(tmp_path, data, visit)


def test_another_cut_changes_rows_tree_and_table_and_names_outlive_it(values: Any, tmp_path: Path) -> None:
    async def visit(own: Tab) -> None:
        cut = "((n) => { const cut = document.getElementById('cut'); cut.value = n;"
        cut += "cut.dispatchEvent(new Event('input')); })"
        await own.value("(() => { const name = document.querySelector('#clusters tr[data-cluster=\"2\"] input');"
                        "name.value = 'mine'; name.dispatchEvent(new Event('change')); })()")  # fmt: skip
        for n in (3, 2):
            await own.value(f"{cut}({n})")
            assert await own.value("document.querySelectorAll('#clusters tbody tr').length") == n
            assert await own.value("document.querySelectorAll('#tree .leaf').length") == n
        rows = "[...document.querySelectorAll('#clusters tbody tr')].map((line) => line.cells[2].textContent)"
        assert await own.value(rows) == ["30", "10"], "numbered by falling rows"
        assert await own.value("document.querySelectorAll('#tree .leaf text')[0].textContent") != "mine · 10"
        await own.value(f"{cut}(4)")
        assert await own.value("document.querySelector('#clusters tr[data-cluster=\"2\"] input').value") == "mine"
        stored = json.loads(await own.value("localStorage.getItem('distspectral f00d')"))
        assert stored == {"2": {"name": "mine", "node": 2, "cluster": 2, "n_clusters": 4, "rows": await own.value(
            "JSON.parse(document.getElementById('data').textContent).clusters.sizes[2]")}}  # fmt: skip

    in_browser(tmp_path, values(), visit)


def test_every_way_to_colour_has_a_legend(values: Any, tmp_path: Path) -> None:
    data = values()
    data["rows"]["outlier"] = [row < 5 for row in range(200)]

    async def visit(own: Tab) -> None:
        modes = await own.value("[...document.querySelectorAll('#colour option')].map((one) => one.value)")
        assert modes == ["cluster", "label", "outlier", "column kind", "column length"]
        legends = []
        for mode in modes:
            await own.value(
                f"(() => {{ const one = document.getElementById('colour'); one.value = {json.dumps(mode)};"
                "one.dispatchEvent(new Event('change')); })()"
            )
            legends.append(await told(own, "#legend"))
        assert legends[1] == "moon 0moon 1moon 2moon 3"
        assert legends[2] == "not an outlieroutlier"
        assert legends[3] == "(empty)even"
        assert legends[4] == "1196"

    in_browser(tmp_path, data, visit)


def test_a_row_behind_a_warning_is_shown_on_the_map(values: Any, tmp_path: Path) -> None:
    rows = [{"id": "row 7", "drawn": 7}, {"id": "far away", "drawn": None}]
    check = {"title": "Outliers", "status": "look", "words": "Many.", "causes": [{"words": "Farthest", "rows": rows}]}

    async def visit(own: Tab) -> None:
        assert await own.value("document.querySelectorAll('.cause button').length") == 1
        assert await told(own, ".row-id") == "far away"
        await own.value("document.querySelector('.cause button').click()")
        assert (await told(own, "#tip")).startswith("idrow 7")
        assert await own.value("document.activeElement.id") == "map"

    in_browser(tmp_path, values(checks=[check]), visit)


def test_the_table_is_sorted_and_a_cluster_chosen_and_named_by_keys_alone(values: Any, tmp_path: Path) -> None:
    data = values()
    data["clusters"]["conductance"] = [0.2, 0.4, 0.1, 0.3]
    data["clusters"]["nearest"] = [1, -1, 3, 0]
    order = "[...document.querySelectorAll('#clusters tbody tr')].map((line) => line.dataset.cluster).join('')"
    focused = "document.activeElement.dataset.key"

    async def visit(own: Tab) -> None:
        await own.value("document.querySelector('[data-key=\"sort Conductance\"]').focus()")
        for expected in ("1302", "2031"):
            await key(own, "Enter", 13, "\r")
            assert await own.value(order) == expected
            assert await own.value(focused) == "sort Conductance"
        assert await own.value("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
        await key(own, "Tab", 9)
        assert await own.value(focused) == "sort Nearest"
        await key(own, "Enter", 13, "\r")
        assert await own.value(order) == "3021", "a cluster without a nearest one comes last"
        await own.value("document.querySelector('[data-key=\"line 2\"]').focus()")
        await key(own, " ", 32, " ")
        assert await own.value(CHOSEN) == ["2"]
        assert await own.value(focused) == "line 2"
        await key(own, "Tab", 9)
        await own.call("Input.insertText", text="mine")
        await key(own, "Tab", 9)
        assert await own.value(focused) == "line 1", "typing a name does not lose the place"
        await own.until("document.querySelector('#chosen h3').textContent.startsWith('mine')")
        assert await own.value(focused) == "line 1", "nor does showing it"

    in_browser(tmp_path, data, visit)


def test_nothing_hostile_runs(values: Any, tmp_path: Path) -> None:
    hostile, short = HOSTILE, HOSTILE[:40]
    data = values(name=hostile, root=f"/data/{hostile}")
    data["rows"]["ids"] = [f"{hostile}{row}" for row in range(200)]
    data["rows"]["labels"] = [hostile] * 200
    data["rows"]["columns"] = {hostile: [f"{hostile} {row}" for row in range(200)]}
    data["exemplars"] |= {"ids": [hostile] * 4, "columns": {hostile: [hostile] * 4}}
    data["confusion"]["classes"] = [hostile, f"{hostile}2"]
    rows = [{"id": hostile, "drawn": 0}, {"id": hostile}]
    causes = [{"words": hostile, "rows": rows}]
    data["checks"] = [{"title": hostile, "status": "look", "words": hostile, "causes": causes}]

    async def visit(own: Tab) -> None:
        find = f"(() => {{ const find = document.getElementById('find'); find.value = {json.dumps(hostile + '7')};"
        await own.value(find + "find.dispatchEvent(new Event('input')); })()")
        assert short in await told(own, "#tip")
        name = "(() => { const name = document.querySelector('#clusters input');"
        await own.value(f"{name} name.value = {json.dumps(hostile)}; name.dispatchEvent(new Event('change')); }})()")
        await own.value("document.querySelector('#clusters tbody tr button').click()")
        assert short in await told(own, "#chosen")
        assert await told(own, "h1") == hostile
        assert await own.value("document.querySelectorAll('script').length") == 2
        assert await own.value("document.querySelectorAll('img, iframe, [onerror]').length") == 0

    in_browser(tmp_path, data, visit)


def test_nothing_is_cut_or_wrapped_amid_a_value_at_a_usual_width(values: Any, tmp_path: Path) -> None:
    """Ten clusters with all columns, whose table scrolls downwards, and a time of two units."""
    data = values(10, seconds={"pack": 85.0})
    data["clusters"]["stability"] = [0.5] * 10
    data["exemplars"]["columns"]["text"] = ["the quick brown fox jumps over lazy dogs " * 3] * 10
    data["confusion"]["classes"] = ["television-receivers", "telecommunications-equipment"]
    data["rows"]["labels"] = [data["confusion"]["classes"][one % 2] for one in data["rows"]["cluster"]]
    beyond = "((one) => one.scrollWidth - one.clientWidth)(document.querySelector('.tall'))"
    heights = "[...new Set([...document.querySelectorAll('.cards strong')].map((one) => one.clientHeight))].length"

    async def visit(own: Tab) -> None:
        await own.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        await own.until("document.querySelectorAll('#clusters tbody tr').length === 10")
        assert await own.value(beyond) == 0
        assert await own.value(heights) == 1

    in_browser(tmp_path, data, visit)


def test_the_policy_stops_a_script_that_came_in_all_the_same(values: Any, tmp_path: Path) -> None:
    async def visit(own: Tab) -> None:
        await own.value(
            "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
            "document.body.append(script); })()"
        )
        assert await own.value("window.ran") is None
        assert await own.value("fetch('http://127.0.0.1:1/').then(() => 'sent', () => 'stopped')") == "stopped"
        assert [text for text in own.trouble() if "Content Security Policy" in text]
        own.heard.clear()

    in_browser(tmp_path, values(), visit)
