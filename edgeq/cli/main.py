"""``edgeq``: the commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgeq import __version__
from edgeq.cli import failures
from edgeq.cli.audit import audit
from edgeq.cli.bench import bench
from edgeq.cli.device import device
from edgeq.cli.doctor import doctor
from edgeq.cli.evaluate import evaluate
from edgeq.cli.explain import explain
from edgeq.cli.export import export
from edgeq.cli.gate import gate
from edgeq.cli.predict import predict
from edgeq.cli.quantize import quantize
from edgeq.cli.targets import targets

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="edgeq",
    help="Take a vision model to INT8 for an edge device, measure what it cost and gained, ship only what "
    "meets its budget.",
    # Plain: at 80 columns typer's panels leave no room for flags such as --resize, and take twice as long.
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
if importlib.util.find_spec("edgeq.cli.demo") is not None:
    from edgeq.cli.demo import demo

    app.command()(demo)
for entry in (quantize, evaluate, bench, audit, explain, gate, predict, export, targets, doctor):
    app.command()(entry)
app.add_typer(device)


@app.callback(invoke_without_command=True)
def _edgeq(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"edgeq {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main(arguments: Sequence[str]) -> int:
    """Run a command; its exit code."""
    try:
        code = app(args=list(arguments), standalone_mode=False, prog_name="edgeq")
    except Exception as error:
        return failures.report(error, as_json="--json" in arguments)
    return code if isinstance(code, int) else 0


def run() -> None:
    """The installed command."""
    # So that clean-up runs; the default would leave temporary folders behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
