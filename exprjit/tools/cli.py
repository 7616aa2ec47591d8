"""The command ``exprjit``: evaluate a formula, or run one of the commands of a table.

Exit status: 0 for an answer, 1 for an error in a formula, 2 for a command line that makes
no sense, 130 for an interrupt and 141 for a closed pipe, as the shell gives them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import TextIOBase, TextIOWrapper
from typing import Any, NamedTuple

from ..errors import ExprError, ExprValueError
from ..function import STAGES, Function
from .options import (
    HELP,
    Arguments,
    Option,
    UsageError,
    arguments_for,
    columns,
    describe,
    did_you_mean,
    formula_and_values,
    parse,
    read_values,
)


class Command(NamedTuple):
    """A row of the table of commands.

    usage: what follows the name; options: gives its option table; run: takes the parsed
    command line and gives the exit status.  Both import what they need when they are called.
    """

    name: str
    usage: str
    help: str
    options: Callable[[], Sequence[Option]]
    run: Callable[[Arguments], int]


def _check_options() -> Sequence[Option]:
    from .check_command import OPTIONS

    return OPTIONS


def _check(arguments: Arguments) -> int:
    from .check_command import OPTIONS, run

    formula, texts = formula_and_values(arguments.words, OPTIONS)
    return run(formula, read_values(texts), arguments.options)


def _files_options(command: str) -> Sequence[Option]:
    from .files_command import OPTIONS

    return OPTIONS[command]


def _files(command: str, arguments: Arguments) -> int:
    from .files_command import RUN

    return RUN[command](arguments)


def _operators_options() -> Sequence[Option]:
    return (Option("--markdown", "as the table of the documentation"),)


def _operators(arguments: Arguments) -> int:
    from .operator_table import as_markdown, as_text

    if arguments.words:
        raise UsageError("'operators' takes no arguments")
    sys.stdout.write(as_markdown() if arguments.options["markdown"] else as_text())
    return 0


def _diagnose(arguments: Arguments) -> int:
    from ..diagnosis import diagnostics

    if arguments.words:
        raise UsageError("'diagnose' takes no arguments")
    print(diagnostics())
    return 0


def _on_files(name: str, help: str) -> Command:
    return Command(
        name,
        "EXPR FILE [NAME=VALUE ...]",
        help,
        partial(_files_options, name),
        partial(_files, name),
    )


COMMANDS = {
    row.name: row
    for row in (
        Command(
            "check",
            "[EXPR] [NAME=VALUE ...]",
            "compare all engines on one formula, or on generated ones",
            _check_options,
            _check,
        ),
        _on_files("count", "count the rows of a file for which a formula is not 0"),
        Command(
            "diagnose",
            "",
            "tell what machine code can be had here, and why not more",
            tuple,
            _diagnose,
        ),
        _on_files("filter", "write the rows of a file for which a formula is not 0"),
        _on_files("map", "write a formula's value for each row of a file"),
        Command(
            "operators",
            "",
            "list every operator and function with its meaning",
            _operators_options,
            _operators,
        ),
    )
}


def stages(text: str) -> tuple[str, ...]:
    """A comma-separated list of stages.  Raises UsageError for an unknown one."""
    names = tuple(text.split(","))
    for name in names:
        if name not in STAGES:
            close = did_you_mean(name, STAGES)
            raise UsageError(f"--dump: no stage {name!r}{close}; there are {', '.join(STAGES)}")
    return names


OPTIONS = (
    Option("--dump", f"print these of {', '.join(STAGES)}", "STAGE,...", read=stages, default=()),
    Option(
        "--backend",
        "what computes; auto takes machine code where it can",
        "B",
        choices=("auto", "jit", "interpreter"),
    ),
    Option(
        "--overflow",
        "results outside 64 bits wrap around, or are errors",
        "MODE",
        choices=("wrap", "raise"),
        default="wrap",
    ),
    Option(
        "--params", "the parameters in order", "NAME,...", read=lambda text: tuple(text.split(","))
    ),
    Option("--version", "print the version and leave"),
    HELP,
)

_HELP = """\
Usage: exprjit EXPR [NAME=VALUE ...] [OPTIONS]
       exprjit COMMAND ...
       exprjit              a prompt; or programs from standard input, one a line

Evaluate an integer formula, by machine code that is made for it.
Values are constant expressions of the language itself: x=0xff, x=-5, x=2**10.

Options:
{options}

Commands (exprjit COMMAND --help says more):
{commands}

Examples:
  exprjit 'x + 4' x=2
  exprjit 'hypot2(a, b) = a*a + b*b; isqrt(hypot2(x, y))' x=3 y=4
  exprjit '-x // 2' x=7 --dump=graph,asm
  exprjit --overflow=raise 'x * x' x=2**40

A formula that begins with two minus signs and a word, or that is nothing but a command's
name, comes after a bare --:  exprjit -- check check=1
"""


def _evaluate(formula: str, values: Mapping[str, int], options: Mapping[str, Any]) -> int:
    """Print what is asked for about a formula."""
    from .. import compile

    function = compile(
        formula,
        options["params"],
        backend=options["backend"] or "auto",
        overflow=options["overflow"],
    )
    wanted = options["dump"]
    arguments = arguments_for(function.params, values, partial=bool(wanted))
    _show_stages(function, wanted)
    if arguments is not None:
        # A call that fails must not look as if the stages belonged to the error.
        sys.stdout.flush()
        print(function(*arguments))
    return 0


def _show_stages(function: Function, wanted: Sequence[str]) -> None:
    for name in wanted:
        text = function.dump(name)
        if len(wanted) > 1:
            print(f"-- {name}")
        print(text.rstrip("\n"))


def _interact(values: Mapping[str, int], options: Mapping[str, Any]) -> int:
    """Without a formula: a prompt at a terminal, else programs from standard input."""
    from .repl import Session, prompt, run_lines

    for name in ("dump", "params"):
        if options[name]:
            raise UsageError(f"--{name} needs a formula")
    session = Session(options["overflow"], options["backend"] or "interpreter", values)
    if sys.stdin is not None and sys.stdin.isatty():
        return prompt(session)
    if isinstance(sys.stdin, TextIOWrapper):
        # Bytes that are no text become an error of the line they are on.
        sys.stdin.reconfigure(errors="surrogateescape")
    return run_lines(session, sys.stdin or ())


def _without_command(arguments: Arguments) -> int:
    formula, texts = formula_and_values(arguments.words, OPTIONS)
    values = read_values(texts)
    if formula is None:
        return _interact(values, arguments.options)
    return _evaluate(formula, values, arguments.options)


def _command(argv: Sequence[str]) -> Command | None:
    return COMMANDS.get(argv[0]) if argv else None


def _run(argv: Sequence[str]) -> int:
    if list(argv[:1]) == ["help"] and (len(argv) == 1 or (len(argv) == 2 and argv[1] in COMMANDS)):
        # No formula: the parameter `help` would have no value.
        argv = [*argv[1:], "--help"]
    command = _command(argv)
    if command is not None:
        table = (*command.options(), HELP)
        arguments = parse(argv[1:], table, f"exprjit {command.name}")
        if arguments.options["help"]:
            usage = f"Usage: exprjit {command.name} {command.usage} [OPTIONS]".replace("  ", " ")
            print(f"{usage}\n\n{command.help.capitalize()}.\n\nOptions:\n{describe(table)}")
            return 0
        return command.run(arguments)
    arguments = parse(argv, OPTIONS)
    if arguments.options["help"]:
        rows = [(row.name, row.help) for row in COMMANDS.values()]
        print(_HELP.format(options=describe(OPTIONS), commands=columns(rows)), end="")
        return 0
    if arguments.options["version"]:
        from .. import __version__

        print(f"exprjit {__version__}")
        return 0
    try:
        return _without_command(arguments)
    except UsageError as error:
        word = arguments.words[0] if arguments.words else ""
        close = did_you_mean(word, COMMANDS)
        if not close or not word.isidentifier() or word in COMMANDS:
            raise
        raise UsageError(f"there is no command {word}{close}; as a formula: {error}") from None


class _NoOutput(TextIOBase):
    """What stands for standard output where that is closed: only who writes to it hears of it."""

    def write(self, text: str) -> int:
        raise ExprValueError("there is no standard output")


@contextmanager
def _output() -> Iterator[None]:
    """What is printed meanwhile has gone out at the end."""
    if sys.stdout is None:
        # Python's own `print` would do nothing.
        with redirect_stdout(_NoOutput()):
            yield
        return
    if isinstance(sys.stdout, TextIOWrapper):
        # A formula may hold what the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    yield
    # Here, so that a closed pipe is noticed here too.
    sys.stdout.flush()


def _abandon_output() -> None:
    """Python flushes standard output once more when it ends, and would complain again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: run a command line, without the program's name; give the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with _output():
            return _run(argv)
    except UsageError as error:
        command = _command(argv)
        name = f"exprjit {command.name}" if command else "exprjit"
        print(f"exprjit: {error}\n{name} --help explains", file=sys.stderr)
        return 2
    except ExprError as error:
        try:
            # What has been printed stands before the error, if it can be written at all.
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _abandon_output()
        print(f"exprjit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _abandon_output()
        return 141
    except OSError as error:
        _abandon_output()
        print(f"exprjit: {error.strerror or error}", file=sys.stderr)
        return 1
