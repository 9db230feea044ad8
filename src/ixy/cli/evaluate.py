"""`ixy evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ixy.cli.options import ParamType, logging_options
from ixy.errors import ConfigurationError
from ixy.evaluate.sections import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence


class Sections(ParamType):
    """Names of sections, separated by commas."""

    name = "sections"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:  # noqa: ARG002
        if not isinstance(value, str):
            return value
        names = value.split(",")
        for name in names:
            if name not in NAMES:
                raise ConfigurationError(f"--only {name!r}: there are {', '.join(NAMES)}")
        return names


@click.command()
@click.option("--quick", is_flag=True, help="Fewer repetitions and batch sizes: some minutes.")
@click.option("--only", type=Sections(), default=(), help=f"Some of the sections: {','.join(NAMES)}.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    metavar="DIR",
    help="Where to write evaluation.html, evaluation.md, and evaluation/ with charts and CSV files; here by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report too, a JSON object a line, for programs.")
@logging_options
def evaluate(quick: bool, only: Sequence[str], output: Path, as_json: bool) -> None:
    """Repeat the thesis's evaluation here, and write a report.

    Throughput by batch size, clock frequency, ring and frame size, beside C and the published curves; what each
    function costs; how much code is unsafe; latency from wire to wire; what NumPy and plain Python reach; a socket of
    the kernel; VirtIO beside DPDK. What cannot be measured here, the report says, with the reason. As root, where the
    kernel lets a core's clock frequency be set, it is set, and restored.

    Close other programs: figures suffer from whatever else runs.

    \b
    Examples:
      ixy evaluate --quick --output report
      ixy evaluate --only throughput,latency
      ixy evaluate --only unsafe --json
    """
    from ixy.evaluate.run import evaluate

    evaluate(output, only, quick=quick, as_json=as_json)
