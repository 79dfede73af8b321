"""Arguments of what has to do with features and newcomers; `mf_numpy.cli_features` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import App, Group, Parameter

from mf_numpy.cli import MODELS_GROUP, Count, Model

_BLOCKS = (
    "id, rated, category:COLUMN, tags:COLUMN, bins:COLUMN:NUMBER and number:COLUMN, and for ratings with a time day, "
    "drift, time_bins:NUMBER and popularity:NUMBER, with *WEIGHT behind it"
)
_GROUP = Group.create_ordered("Features", help=f"With solver gd, sgd, lbfgs or gibbs. Blocks are {_BLOCKS}.")
_Blocks = Parameter(group=_GROUP, metavar="BLOCK,…")
_Table = Parameter(group=_GROUP, metavar="FILE")
_Ids = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What users and items are made of."""

    user_features: Annotated[
        str | None, _Blocks, Parameter(help="What users are made of, such as id,category:gender,bins:age:6.")
    ] = None
    item_features: Annotated[str | None, _Blocks, Parameter(help="What items are made of, such as id,tags:genres.")] = (
        None
    )
    user_facts: Annotated[
        str | None, _Table, Parameter(help="Table of users, its first column their ids; default: the data set's own.")
    ] = None
    item_facts: Annotated[
        str | None, _Table, Parameter(help="Table of items, its first column their ids; default: the data set's own.")
    ] = None


def add_commands(app: App) -> None:
    """Give a command line ``fold-in`` and ``suggest-items``."""

    @app.command(group=MODELS_GROUP)
    def fold_in(
        model: Model,
        ratings: Annotated[str | None, Parameter(help="CSV, TSV or Parquet file of the newcomer's ratings.")] = None,
        /,
        *,
        of: Annotated[str, Parameter(help="What is new: a user or an item.")] = "user",
        facts: Annotated[
            list[str] | None,
            Parameter(
                negative=(), consume_multiple=True, metavar="NAME=VALUE", help="What is known beside the ratings."
            ),
        ] = None,
        count: Count = 10,
        why: Annotated[
            str | None, Parameter(help="Say what each rating adds to the prediction with this one instead.")
        ] = None,
        prior: Annotated[
            str, Parameter(help="What holds the row where ratings are few: rows (those of training) or penalty.")
        ] = "rows",
        id_column: Annotated[
            str | None, Parameter(help="Column of ids in the file; default: item, or user with --of item.")
        ] = None,
        rating_column: Annotated[str, Parameter(name="--rating", help="Column of ratings in the file.")] = "rating",
    ) -> None:
        """List what somebody whom training has not seen would rate highest, without training."""
        from mf_numpy import cli_features

        cli_features.fold_in(
            model, ratings, of=of, facts=facts or [], n=count, why=why, prior=prior, ids=id_column,
            rating=rating_column,
        )  # fmt: skip

    @app.command(group=MODELS_GROUP)
    def suggest_items(
        model: Model,
        /,
        *,
        count: Count = 10,
        rated: Annotated[_Ids, Parameter(help="Ids of items that she has rated already.")] = None,
        items: Annotated[_Ids, Parameter(help="Ids of the only items to ask about.")] = None,
        without: Annotated[_Ids, Parameter(help="Ids of items not to ask about.")] = None,
        sure: Annotated[bool, Parameter(negative=(), help="She can rate each, whether many have or not.")] = False,
    ) -> None:
        """List the items to ask a new user about first: those whose ratings leave the least open."""
        from mf_numpy import cli_features

        cli_features.suggest_items(model, n=count, rated=rated or [], items=items, without=without, sure=sure)
