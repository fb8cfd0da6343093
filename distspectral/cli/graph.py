"""``distspectral graph export``: the graph of a run as other libraries take it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from distspectral.cli.console import print_note
from distspectral.cli.options import RunPath, require_apart

OutputPath = Annotated[
    str, typer.Argument(metavar="OUT", help="The file; for faiss the folder of two.", show_default=False)
]
Form = Annotated[
    Literal["npz", "anndata", "faiss"],
    typer.Option(
        "--to",
        help="npz: affinities as a SciPy sparse matrix; anndata: obsp of an .h5ad file; faiss: ids.npy and "
        "squared_distances.npy, as a search returns them.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="What a run knows of neighbours.", no_args_is_help=True)
    group.callback()(_nothing)
    group.command("export")(export)
    app.add_typer(group, name="graph")


def _nothing() -> None:
    """Make the group one of commands, though there is one only."""


def export(run: RunPath, output: OutputPath, form: Form = "npz") -> None:
    """Write the graph that a finished run was trained on, or the neighbours it was made from, for other libraries.

    Row i is row i of the run's output. A matrix is held in memory, about 24 bytes an edge; faiss streams.
    """
    from distspectral.graph.export import FAISS_FILES, write_anndata, write_faiss, write_npz
    from distspectral.stages.finished_run import FinishedRun
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import join

    finished = FinishedRun(Artifact(run))
    neighbors, graph = finished.graph()
    require_apart([join(output, name) for name in FAISS_FILES] if form == "faiss" else [output], run, "OUT")
    if form == "npz":
        write_npz(graph, output)
    elif form == "anndata":
        write_anndata(graph, neighbors, finished.artifact("pack"), output)
    else:
        write_faiss(neighbors, output)
    print_note(f"wrote {output} from {(neighbors if form == 'faiss' else graph).uri}")
