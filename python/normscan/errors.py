"""The one tree of errors. Each class carries the exit code that the command line ends with.

A message says what was found, what was expected and what to do, and names the file or field. This module imports
nothing, so that every layer, the native one included, can raise from it.
"""

from __future__ import annotations


class Error(Exception):
    """Base of every error that normscan raises on purpose."""

    exit_code = 1


class UsageError(Error):
    """A request that cannot be carried out: a wrong option, a missing device, a file that would be overwritten."""

    exit_code = 2


class ArgumentError(Error, ValueError):
    """A wrong argument of a function: dtype, rank, shape, device, range. The native core raises this one."""


class DeviceError(Error):
    """What a GPU or its driver reports: no memory, a launch that failed, a device that went away."""


class InputError(Error):
    """Bad input data: an image, a folder, a table, a bundle."""

    exit_code = 3


class ImageError(InputError):
    """One image that cannot be read or must not be scored. Scoring a folder goes on past it and lists it."""


class ConfigError(InputError):
    """A configuration or scoring spec with an unknown field, a wrong type or a value out of range."""


class BundleError(InputError):
    """A bundle or checkpoint that is incomplete, altered or unsafe to open."""


class OutputError(Error):
    """A result that cannot be written: a full disk, a folder without permission. Nothing half-written stays."""

    exit_code = 3


class ParityError(Error):
    """Two engines, or an engine and its recorded answers, disagree."""

    exit_code = 5


class MissingExtraError(Error):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; it comes with: pip install 'normscan[{extra}]'")
