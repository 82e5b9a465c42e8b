"""`hft`, the command: one verb a job, each a few lines that import what does the work and call it.

Imports of the work stand inside the verbs, because the compiler behind the kernels takes 0.4 s to
import and `hft --help` must not. Every refusal of the project (`ipc.errors.Refused`) ends here: it
is printed as what was refused, expected, found, where and the remedy, one a line, never as a
traceback. Exit codes: 0 done, 1 refused or failed or nobody reads our output any more, 2 the
command line names what does not exist, 130 interrupted.

Comes after everything; this and `hftcore.exchange` and `hftcore.ops` are where parts are wired.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hftcore import __version__
from hftcore.errors import Refused, UsageRefused

REFUSED, USAGE, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="hft",
    help="A trading venue in readable Python: start it, look into it, replay recordings, measure.",
    add_completion=False,
    invoke_without_command=True,
)
FORMATS = ("itch", "lobster")
"""Those of `hftcore.marketdata.sources`, which takes too long to import here."""
KNOWN_VALUES = {"--format": FORMATS}
"""What an option that was given no value may be."""
Account = Annotated[int, typer.Option(min=1, help="Whose order.")]
Name = Annotated[str, typer.Option("--client-order-id", help="Your own name of the order.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Venue = Annotated[str, typer.Option(metavar="NAME", help="Of the venue.")]
Watch = Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")]


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> int:
    """Print the version, or the help when there is no command."""
    if version:
        print(f"hftcore {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), end="")
    return 0


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording by an exchange.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="|".join(FORMATS), help="How FILE is written.")
    ],
    instrument: Annotated[
        str | None, typer.Option(help="Replay this symbol only; default: all.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the book with the recording's after each row.")
    ] = False,
    speed: Annotated[
        str | None,
        typer.Option(
            metavar="max|real|N",
            help="Through a venue in processes of its own, N times as fast as recorded;"
            " --verify then compares the books at the end, the subscriber's too.",
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Drive a recording of market data through the matching engine."""
    from hftcore.ops import live_replay
    from hftcore.ops import replay as work

    if speed is not None:
        return live_replay.main(file, format_, instrument, speed, verify, json)
    return work.main(file, format_, instrument, verify, json)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to send.")] = 10.0,
    rate: Annotated[
        float, typer.Option(min=0, help="Commands a second, 0: as fast as it goes.")
    ] = 50_000.0,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds, equal commands.")] = 1,
    shards: Annotated[int, typer.Option(min=0, help="Matchers, 0: as many as fit.")] = 0,
    json: Json = False,
) -> int:
    """Run a whole venue under a generated order flow, and judge what came out of it."""
    from hftcore.ops import demo as work

    return work.main(seconds=seconds, rate=rate, seed=seed, shards=shards, json=json)


@app.command()
def bench(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="What to measure; an unknown name lists all.")
    ],
    case: Annotated[str | None, typer.Option(help="Run this case of the suite only.")] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Tiny parameters: does it run? The figures mean nothing."),
    ] = False,
    json: Json = False,
) -> int:
    """Measure the product, as fast as it goes, and verify the answer that was measured."""
    from perf import bench as work

    return work.main(suite, case=case, json=json, smoke=smoke)


@app.command()
def warm(json: Json = False) -> int:
    """Compile every kernel in this one process, so that whatever starts next starts warm."""
    from hftcore.ops import warm as work
    from perf import bench as benchmarks

    return work.main(json=json, extra={"benchmarks": benchmarks.warm})


@app.command()
def dump(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|REGION",
            help="Raw 64-byte slots, an .npy of command rows, a .region file, or VENUE/NAME.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="commands or events; default: what the records look like.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add each field's unit, scale and who stamps it.")
    ] = False,
    json: Json = False,
) -> int:
    """Print records of commands and events, or what stands in a region of shared memory."""
    from hftcore.ops import dump as work

    return work.main(target, kind=kind, limit=limit, json=json, explain=explain)


@app.command()
def up(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py", help="Defines VENUE = VenueConfig(...); default: built in."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--venue", help="Name it so.")] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Be the supervisor, for systemd (Type=notify).")
    ] = False,
    json: Json = False,
) -> int:
    """Start a venue on this host and return when it is ready."""
    from hftcore.ops import venue_tools as work

    return work.up(config, venue=name, foreground=foreground, json=json)


@app.command()
def down(venue: Venue = "venue", json: Json = False) -> int:
    """Stop a venue: what it has accepted is matched and reported, then nothing is left of it."""
    from hftcore.ops import venue_tools as work

    return work.down(venue, json=json)


@app.command()
def stat(venue: Venue = "venue", watch: Watch = False, json: Json = False) -> int:
    """Show how a running venue is: workers, rates, lags, counters, memory."""
    from hftcore.ops import stat as work

    return work.main(venue, watch=watch, json=json)


@app.command()
def book(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Such as BTC/USD.")],
    venue: Venue = "venue",
    depth: Annotated[int, typer.Option(min=1, help="Levels a side.")] = 10,
    watch: Watch = False,
    json: Json = False,
) -> int:
    """Show the book of a running venue, read from the matcher's memory."""
    from hftcore.ops import book as work

    return work.main(venue, symbol, depth=depth, watch=watch, json=json)


@app.command()
def logs(
    venue: Venue = "venue",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    json: Json = False,
) -> int:
    """Show what a venue's processes said since its newest start."""
    from hftcore.ops import logs as work

    return work.main(venue, follow=follow, json=json)


@app.command()
def order(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL")],
    side: Annotated[str, typer.Argument(metavar="buy|sell")],
    words: Annotated[list[str], typer.Argument(metavar="QTY [@] PRICE")],
    venue: Venue = "venue",
    account: Account = 1,
    market: Annotated[
        bool, typer.Option("--market", help="Take what is there; PRICE is the worst.")
    ] = False,
    time_in_force: Annotated[str, typer.Option("--tif", metavar="gtc|ioc")] = "",
    client_order_id: Name = "",
    json: Json = False,
) -> int:
    """Send an order to a running venue and say what became of it."""
    from hftcore.ops import orders_cli as work

    return work.order(
        symbol, side, words, venue=venue, account=account, market=market,
        time_in_force=time_in_force, client_order_id=client_order_id, json=json,
    )  # fmt: skip


@app.command()
def cancel(
    words: Annotated[list[str] | None, typer.Argument(metavar="[ORDER_ID] [SYMBOL]")] = None,
    client_order_id: Name = "",
    everything: Annotated[bool, typer.Option("--all", help="All of the account.")] = False,
    venue: Venue = "venue",
    account: Account = 1,
    json: Json = False,
) -> int:
    """Cancel an order of a running venue, or all of an account."""
    from hftcore.ops import orders_cli as work

    return work.cancel(
        words or [], venue=venue, account=account, client_order_id=client_order_id,
        everything=everything, json=json,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `hft` and exit with its status; the entry point of the installed command."""
    try:
        status = app(arguments, prog_name="hft", standalone_mode=False) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # what Python flushes at exit must not hit the closed pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = REFUSED
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Refused as refused:
        status = report(refused)
    except OSError as error:
        if error.filename is None:
            raise
        status = report(
            Refused(
                "a file can't be used",
                expected="a file that this user may open",
                found=error.strerror or str(error),
                where=os.fspath(error.filename),
                remedy="correct the path or its permissions",
            )
        )
    except Exception as error:
        usage = usage_refusal(error)
        if usage is None:
            raise
        status = report(usage)
    sys.exit(status)


def report(refused: Refused) -> int:
    """Print a refusal on stderr, one part a line, and return the exit status that goes with it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("hft: ", "bold red"), (refused.what, "bold")))
    for label in ("expected", "found", "where", "remedy"):
        said = getattr(refused, label)
        if said:
            console.print(Text.assemble((f"  {label + ':':10}", "dim"), said))
    return USAGE if isinstance(refused, UsageRefused) else REFUSED


def usage_refusal(error: Exception) -> UsageRefused | None:
    """Turn the command-line toolkit's complaint into ours, with the names that do exist.

    The toolkit's classes moved between versions (click, then inside typer), so they are recognised
    by what they can do.
    """
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    what = error.format_message()
    expected, remedy = "", "hft --help"
    if context is not None:
        remedy = f"{context.command_path} --help"
        commands: dict[str, Any] = getattr(context.command, "commands", {})
        options = [name for param in context.command.params for name in param.opts]
        if hasattr(error, "option_name"):
            what = getattr(error, "message", what)  # without its guesses: all names follow
            expected = "one of " + ", ".join(name for name in options if name.startswith("-"))
        elif commands:
            expected = "one of " + ", ".join(commands)
        else:
            expected = context.get_usage().removeprefix("Usage: ")
    # an option without its value comes without a context, one that is missing as its parameter
    meant = getattr(getattr(error, "param", None), "opts", [getattr(error, "option_name", "")])
    for name in KNOWN_VALUES.keys() & set(meant):
        expected = f"one of {', '.join(KNOWN_VALUES[name])}"
    what = what.strip().rstrip(".")
    return UsageRefused(what[:1].lower() + what[1:], expected=expected, remedy=remedy)


__all__ = ["app", "main"]
