"""One command line for both packages: ``python -m mf_numpy`` trains by hand, ``python -m mf_torch`` by autograd."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter, UnknownOptionError
from cyclopts.validators import Number
from rich.console import Console

import mf_numpy
from mf_numpy import cli_errors
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.recipes import RECIPES

if TYPE_CHECKING:
    from mf_numpy.result import FitResult
    from mf_numpy.suite import Suite

PIPE_CLOSED, MISUSED, INTERRUPTED = 1, 2, 130
_HELP_WIDTH = 110
DEFAULT_RECIPE = "biased"

_TRAINING = Group.create_ordered("Train")
MODELS_GROUP = Group.create_ordered("Use a model")
_DATA = Group.create_ordered("Know the data")
_TRUST = Group.create_ordered("Trust the code")

FIT_GROUP = Group.create_ordered("Fit")
BACKEND_GROUP = Group.create_ordered("Where it runs")
_SETTINGS_GROUP = Group.create_ordered("Settings", help="Those not given are the recipe's, which `recipes` lists.")
READER_GROUP = Group.create_ordered("Reading a file", help="Those not given are found out from the file.")

Data = Annotated[str, Parameter(help="Name of a data set, which `data` lists, or path of a file or folder.")]
Model = Annotated[str, Parameter(help="Model file that `fit` saved.")]
User = Annotated[str, Parameter(help="User id, as the data have it.")]
At = Annotated[
    str | None,
    Parameter(
        metavar="DATE",
        help="For a model with features of time: such as 1998-04-22, or seconds since 1970; default: the last day.",
    ),
]
Count = Annotated[int, Parameter(name=("-n", "--count"), validator=Number(gte=1), help="Rows to show.")]
_Clip = Annotated[bool, Parameter(negative=(), help="Move predictions outside the rating scale to its ends.")]


Recipe = Annotated[
    str | None,
    Parameter(group=FIT_GROUP, help=f"Settings to start from: {', '.join(RECIPES)}; default: {DEFAULT_RECIPE}."),
]
_Valid = Annotated[
    float | None,
    Parameter(group=FIT_GROUP, help="Share of the ratings to hold out, 0 for none; default: the recipe's."),
]
_Output = Annotated[
    str | None,
    Parameter(
        name=("--output", "-o"),
        group=FIT_GROUP,
        help="File to save the model to; default: model.safetensors, or the resumed file.",
    ),
]
_Resume = Annotated[
    str | None, Parameter(group=FIT_GROUP, help="Model file to go on from, on the same data and --seed.")
]
_Draws = Annotated[
    str | None,
    Parameter(group=FIT_GROUP, help="New file for the draws of gibbs and hmc, else in memory."),
]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a file of ratings is read; None leaves it to the reader."""

    format: Annotated[
        str | None,
        Parameter(
            group=READER_GROUP, help="How it is written: anime, ml-100k, ml-dat, ml-csv, csv, tsv, npz, parquet."
        ),
    ] = None
    duplicates: Annotated[
        str | None, Parameter(group=READER_GROUP, help="What a pair rated twice is: error, first, last, mean, keep.")
    ] = None
    user: Annotated[str | None, Parameter(group=READER_GROUP, help="Column of user ids.")] = None
    item: Annotated[str | None, Parameter(group=READER_GROUP, help="Column of item ids.")] = None
    rating: Annotated[str | None, Parameter(group=READER_GROUP, help="Column of ratings.")] = None
    scale: Annotated[
        tuple[float, float] | None,
        Parameter(group=READER_GROUP, help="Smallest and largest rating.", negative=(), metavar="LO HI"),
    ] = None
    clicks: Annotated[
        float | None,
        Parameter(group=READER_GROUP, help="Take ratings of this and more for clicks, each worth 1; leave others out."),
    ] = None
    download: Annotated[
        bool, Parameter(group=READER_GROUP, help="Fetch a data set of MovieLens that is not here.", negative=())
    ] = False


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """No options of its own."""


def _settings() -> type:
    """Every field of `Config` as an option whose None means "as in the recipe"."""
    hints = get_type_hints(Config)
    # Pairs have no natural spelling in words; `mf_numpy.cli_fit` reads this one.
    hints["lr_schedule"] = str
    metavars = {"lr_schedule": "EPOCH:FACTOR,…"}
    return make_dataclass(
        "Settings",
        [
            (
                f.name,
                Annotated[
                    hints[f.name] | None,
                    Parameter(help=f.metadata["help"], metavar=metavars.get(f.name), group=_SETTINGS_GROUP),
                ],
                None,
            )
            for f in dataclasses.fields(Config)
        ],
        frozen=True,
        kw_only=True,
    )


Settings = _settings()
_OPTIONS = {f.name for kind in (Reader, Config) for f in dataclasses.fields(kind)} | {
    "device",
    "valid",
    "gain",
    "prior",
}
"""Names of the library's arguments that are options here."""


def build_app(
    package: str,
    *,
    about: str,
    fit: Callable[..., FitResult],
    fit_options: type = NoOptions,
    check: Callable[..., Suite],
    check_options: type = NoOptions,
) -> App:
    """The command line of a package.

    Args:
        package: name after ``python -m``.
        about: what it trains by, for the help.
        fit: as `mf_numpy.fit`, with the fields of `fit_options` as further keyword arguments.
        check: makes the suite that ``check`` runs, from the fields of `check_options` as keyword arguments.
        fit_options, check_options: frozen dataclasses of options, each field annotated with a cyclopts ``Parameter``.

    Returns:
        An app; run it with `run`.
    """
    # Commands import what they need when they are called: --help must not wait for PyTorch.
    app = App(
        name=f"python -m {package}",
        help=f"Matrix factorisation of ratings, {about}.",
        help_format="plaintext",
        version=f"{package} {mf_numpy.__version__}",
        result_action="return_value",
        help_epilogue=f"Try: python -m {package} fit planted",
    )
    app["--help"].group = app["--version"].group = Group.create_ordered("Help")

    no_reader, no_settings = Reader(), Settings()

    # They take their arguments from this module.
    from mf_numpy import cli_lists, cli_newcomers

    no_features = cli_newcomers.FeatureOptions()

    @app.command(name="fit", group=_TRAINING)
    @flat(how=fit_options, features=cli_newcomers.FeatureOptions, settings=Settings, reader=Reader)
    def fit_command(
        data: Data,
        /,
        *,
        recipe: Recipe = None,
        valid: _Valid = None,
        output: _Output = None,
        resume: _Resume = None,
        draws: _Draws = None,
        how: Any = fit_options(),  # noqa: B008
        features: Any = no_features,
        settings: Any = no_settings,
        reader: Any = no_reader,
    ) -> int:
        """Train a model, show its scores beside two baselines, and save it."""
        from mf_numpy import cli_fit

        return cli_fit.fit(
            data,
            train_with=fit,
            how=asdict(how),
            recipe=recipe,
            default_recipe=DEFAULT_RECIPE,
            features=asdict(features),
            settings=asdict(settings),
            valid=valid,
            output=output,
            resume=resume,
            draws=draws,
            reader=asdict(reader),
        )

    @app.command(group=_TRAINING)
    def recipes() -> None:
        """List the recipes and the settings of each."""
        from mf_numpy import cli_model

        cli_model.recipes()

    @app.command(group=MODELS_GROUP)
    @flat(reader=Reader)
    def evaluate(model: Model, data: Data, /, *, reader: Any = no_reader) -> None:
        """Score a saved model on a table of ratings."""
        from mf_numpy import cli_model

        cli_model.evaluate(model, data, reader=asdict(reader))

    @app.command(group=MODELS_GROUP)
    def predict(
        model: Model,
        user: Annotated[str | None, Parameter(help="User id, for a single prediction.")] = None,
        item: Annotated[str | None, Parameter(help="Item id, for a single prediction.")] = None,
        /,
        *,
        pairs: Annotated[str | None, Parameter(help="CSV, TSV or Parquet file with a user and an item a row.")] = None,
        output: Annotated[
            str | None, Parameter(name=("--output", "-o"), help="CSV file to write; the standard output if not given.")
        ] = None,
        user_column: Annotated[str, Parameter(name="--user", help="Column of user ids in the pairs.")] = "user",
        item_column: Annotated[str, Parameter(name="--item", help="Column of item ids in the pairs.")] = "item",
        clip: _Clip = False,
        level: Annotated[
            float | None,
            Parameter(help="Also say where a rating lies with this probability, such as 0.9; of a model of draws."),
        ] = None,
        at: At = None,
    ) -> None:
        """Predict one rating, or those of a file of pairs."""
        from mf_numpy import cli_model

        if pairs is not None and user is None:
            columns = {"user": user_column, "item": item_column}
            cli_model.predict_pairs(model, pairs, output, **columns, clip=clip, level=level, at=at)
        elif pairs is None and user is not None and item is not None:
            if output is not None:
                raise ConfigError("output is given for a single prediction, which is printed; drop it, or give --pairs")
            cli_model.predict(model, user, item, clip=clip, level=level, at=at)
        else:
            raise ConfigError("give a USER and an ITEM, or --pairs FILE")

    cli_lists.add_commands(app)
    cli_newcomers.add_commands(app)

    @app.command(group=MODELS_GROUP)
    @flat(reader=Reader)
    def look(model: Model, data: Data, user: User, /, *, count: Count = 20, reader: Any = no_reader) -> None:
        """Show a user's own ratings beside the predictions, then ten recommendations."""
        from mf_numpy import cli_model

        cli_model.look(model, data, user, n=count, reader=asdict(reader))

    @app.command(group=_DATA)
    @flat(reader=Reader)
    def describe(
        data: Data,
        /,
        *,
        plots: Annotated[str | None, Parameter(help="Folder to draw the distributions into.")] = None,
        reader: Any = no_reader,
    ) -> None:
        """Say what a table of ratings looks like, and draw it."""
        from mf_numpy import cli_model

        cli_model.describe(data, plots=plots, reader=asdict(reader))

    @app.command(name="data", group=_DATA)
    def list_data() -> None:
        """List the data sets that have a name, and where they were found."""
        from mf_numpy import cli_model

        cli_model.data()

    @app.command(name="check", group=_TRUST)
    @flat(how=check_options)
    def check_command(
        *,
        break_: Annotated[
            str | None,
            Parameter(name="--break", help="Name of a fault to put in place, to see which checks reject it."),
        ] = None,
        list_faults: Annotated[bool, Parameter(negative=(), help="List the faults and who made them.")] = False,
        how: Any = check_options(),  # noqa: B008
    ) -> int:
        """Compare every way to the gradient, whole trajectories, and what must hold of them."""
        from mf_numpy import cli_check

        suite = check(**asdict(how))
        if list_faults:
            return cli_check.list_faults(suite)
        return cli_check.check(suite) if break_ is None else cli_check.check_broken(suite, break_)

    return app


def flat(**options: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command's arguments option classes that are only known at run time, their fields as plain options."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, kind in options.items():
            # A class without fields would be shown as an option of its own.
            hint = Parameter(name="*", accepts_keys=True) if dataclasses.fields(kind) else Parameter(parse=False)
            command.__annotations__[name] = Annotated[kind, hint]
        return command

    return decorate


def run(app: App, tokens: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; an expected error is one line on stderr, without traceback.

    0 done; 1 diverged, a check failed, or the pipe was closed; 2 a wrong argument or file; 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # A title that the terminal's encoding lacks is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    width = min(Console(file=sys.stdout).width, _HELP_WIDTH) if sys.stdout.isatty() else _HELP_WIDTH
    try:
        code = app(
            sys.argv[1:] if tokens is None else list(tokens),
            console=Console(file=sys.stdout, width=width, highlight=False),
            exit_on_error=False,
            print_error=False,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UnknownOptionError as error:
        return _complain(f"{cli_errors.elsewhere(error) or error} See --help.", MISUSED)
    except CycloptsError as error:
        return _complain(f"{error} See --help.", MISUSED)
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit. Rich, which prints tables, ends with 1 by itself.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return _complain("interrupted; nothing was saved", INTERRUPTED, "")
    except (ConfigError, DataError, FileFormatError, OSError, IndexError) as error:
        return _complain(cli_errors.in_options(str(error), _OPTIONS), MISUSED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mf_"):
            raise
        return _complain(f"{error}; install it to use this command", MISUSED)


def _complain(text: str, code: int, kind: str = "error: ") -> int:
    sys.stderr.write(kind + " ".join(text.split()) + "\n")
    return code
