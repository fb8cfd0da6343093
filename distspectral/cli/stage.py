"""``distspectral stage`` and ``report``: one link of the chain by its name, and the page anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from distspectral.cli.console import StageProgress, print_manifest, print_note
from distspectral.cli.options import (
    AsJson,
    ConfigPath,
    Local,
    Overrides,
    Quiet,
    RunOrConfig,
    engine_of,
    is_config,
    load,
    load_run,
    require_stage,
)
from distspectral.cli.run import show

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.orchestration.engine import Engine
    from distspectral.orchestration.observer import Observer
    from distspectral.orchestration.pipeline import Pipeline

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the stage; see below.", show_default=False)]

Figures = Annotated[bool, typer.Option("--figures", help="Write map, tree, spectrum and more as SVG into figures/.")]


class ListsStages(typer.core.TyperCommand):
    """A command whose help ends with all stages; their modules are imported only for that."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from distspectral.stages import STAGES

        listed = {stage.name: stage.purpose for stages in reversed(list(STAGES.values())) for stage in stages.values()}
        self.epilog = "Stages:\n\n" + "\n\n".join(f"[bold]{name}[/] {purpose}" for name, purpose in listed.items())
        super().format_help(ctx, formatter)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("stage", cls=ListsStages)(stage)
    app.command("report")(report)


def stage(
    name: Name,
    config: ConfigPath,
    overrides: Overrides = None,
    local: Local = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run one stage of a run, its inputs being there and made from this config; a current stage is skipped."""
    require_stage(name)
    loaded = load(config, overrides)
    engine = engine_of(loaded, local)
    try:
        with StageProgress(quiet) as progress:
            manifest = checked_pipeline(loaded, engine, progress).stage(name)
    finally:
        engine.close()
    print_manifest(manifest, as_json)


def report(run: RunOrConfig, overrides: Overrides = None, figures: Figures = False, as_json: AsJson = False) -> None:
    """Write metrics.json and report.html anew from the finished artifacts; a directory is enough, without the data."""
    from distspectral.orchestration.engine import LocalEngine
    from distspectral.orchestration.observer import SilentObserver
    from distspectral.orchestration.opened_run import finished_run
    from distspectral.report.figures import FOLDER
    from distspectral.storage.filesystems import join

    loaded, engine, observer = load_run(run, overrides), LocalEngine(), SilentObserver()
    if is_config(run):
        metrics = checked_pipeline(loaded, engine, observer).report(figures)
    else:
        metrics = finished_run(loaded, engine, observer, as_told=bool(overrides)).report(figures)
    show(loaded, metrics, as_json)
    if figures and not as_json:
        print_note(f"figures: {join(loaded.root, FOLDER)}")


def checked_pipeline(config: RunConfig, engine: Engine, observer: Observer) -> Pipeline:
    """Return the pipeline of a config that passed all checks."""
    from distspectral.config import check
    from distspectral.orchestration.pipeline import Pipeline
    from distspectral.storage.source.dataset import Source

    source = Source.open(config.data)
    check(config, source)
    return Pipeline(config, source, engine, observer)
