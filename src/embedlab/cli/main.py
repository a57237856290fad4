"""Fine-tune text embedding models on your own data, and measure whether it helps.

Start with `embedlab run 00_quickstart`, `embedlab diagnose DATASET` or `embedlab doctor`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import typer
from rich.markup import escape

from embedlab.cli import (
    convert,
    deploy,
    diagnose,
    evaluate,
    evidence,
    export,
    init,
    label,
    migrate,
    results,
    run,
    serve,
    sweep,
    synthesise,
    tune,
)
from embedlab.cli.console import BAD_INPUT, FAILED, err
from embedlab.cli.signals import SIGNAL_EXIT, interruptible
from embedlab.errors import EmbedlabError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS}
UNWRITABLE |= {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}  # a folder for a file, and vice versa

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Runs": (run.run, run.params, sweep.sweep, sweep.watch, sweep.logs, sweep.cancel),
    "Results": (results.table, results.diff, results.report, results.publish, results.headline, results.site),
    "Data": (convert.convert, synthesise.synthesise),
    "Models": (
        diagnose.diagnose,
        tune.tune,
        evaluate.evaluate,
        export.export,
        evidence.evidence,
        evidence.verify,
        evidence.push,
        serve.serve,
    ),
    "Installation": (init.init, run.doctor, run.version, migrate.migrate),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(label.app, name="label", rich_help_panel="Data")
app.add_typer(deploy.app, name="deploy", rich_help_panel="Models")


def main() -> None:
    """Run the command line; print an expected error as one line instead of a traceback.

    The exit code is 128 + n after signal n: 130 after Ctrl-C, 143 after SIGTERM.
    """
    with interruptible() as received:
        try:
            _call()
        except (KeyboardInterrupt, SystemExit) as end:
            if not received or (isinstance(end, SystemExit) and not end.code):
                raise
            err.show_cursor()
            raise SystemExit(SIGNAL_EXIT + received[0]) from None


def _call() -> None:
    try:
        app()
    except EmbedlabError as error:
        err.print(f"[red]{escape(str(error))}[/red]", highlight=False, soft_wrap=True)
        raise SystemExit(BAD_INPUT) from None
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        problem = f"cannot write {error.filename or 'a file'} ({error.strerror})"
        remedy = "Finished runs are safe. Free some space or fix the permissions, then run the command again."
        err.print(f"[red]{escape(problem)}. {remedy}[/red]", highlight=False, soft_wrap=True)
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
