"""Show the package's log on standard error, and keep the logs of other libraries off it."""

import logging

import click

__all__ = ["configure_logs"]

# What a person follows with --verbose: this package, and the warnings of Python libraries.
_SHOWN = ("onnx_tropnnc", "py.warnings")


class _StandardError(logging.Handler):
    """Print records where standard error is now; it may be another stream than when the log was configured."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        click.echo(self.format(record), err=True)


def configure_logs(verbose: bool) -> None:
    """Print INFO and above of this package where `verbose`, and nothing of other libraries' logs."""
    root = logging.getLogger()
    # Records that no handler takes are printed by Python itself, those of onnx_ir beside our one line too.
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    shown = _StandardError()
    shown.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    for logger in map(logging.getLogger, _SHOWN):
        logger.handlers = [shown] if verbose else []
        logger.setLevel(logging.INFO if verbose else logging.NOTSET)
