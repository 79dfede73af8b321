"""Arguments of the commands that make lists of items and users and score rankings; `mf_numpy.cli_model` runs them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter

from mf_numpy.cli import MODELS_GROUP, At, Count, Data, Model, Reader, User, flat

_WithSeen = Annotated[bool, Parameter(negative=(), help="Recommend items that the user has rated, too.")]
_Items = Annotated[
    list[str] | None, Parameter(negative=(), consume_multiple=True, help="Ids of the only items to choose from.")
]
_Without = Annotated[
    list[str] | None, Parameter(negative=(), consume_multiple=True, help="Ids of items to leave out.")
]  # fmt: skip
_Diversity = Annotated[
    float, Parameter(help="How much it counts that the items of the list differ, from 0 to below 1.")
]
_Measure = Annotated[str, Parameter(help="How factors are compared: cosine, or dot for their lengths, too.")]
_Lengths = Annotated[
    list[int] | None,
    Parameter(name="-k", negative=(), consume_multiple=True, help="Lengths of the lists to score; default: 10."),
]
_Threshold = Annotated[
    float | None, Parameter(help="Lowest rating that makes an item relevant; default: the mean rating in training.")
]
_Gain = Annotated[str, Parameter(help="What a relevant item is worth in NDCG: binary, rating or exponential.")]


def add_commands(app: App) -> None:
    """Give a command line ``recommend``, ``similar-items``, ``similar-users`` and ``rank``."""
    no_reader = Reader()

    @app.command(group=MODELS_GROUP)
    def recommend(
        model: Model,
        user: User,
        /,
        *,
        count: Count = 10,
        with_seen: _WithSeen = False,
        items: _Items = None,
        without: _Without = None,
        diversity: _Diversity = 0.0,
        at: At = None,
    ) -> None:
        """List the items that a user would rate highest."""
        from mf_numpy import cli_model

        cli_model.recommend(
            model, user, n=count, with_seen=with_seen, items=items, without=without, diversity=diversity, at=at
        )

    @app.command(group=MODELS_GROUP)
    def similar_items(
        model: Model,
        item: Annotated[str, Parameter(help="Item id, as the data have it.")],
        /,
        *,
        count: Count = 10,
        measure: _Measure = "cosine",
    ) -> None:
        """List the items that are most like one."""
        from mf_numpy import cli_model

        cli_model.similar_items(model, item, n=count, measure=measure)

    @app.command(group=MODELS_GROUP)
    def similar_users(model: Model, user: User, /, *, count: Count = 10, measure: _Measure = "cosine") -> None:
        """List the users who are most like one."""
        from mf_numpy import cli_model

        cli_model.similar_users(model, user, n=count, measure=measure)

    @app.command(group=MODELS_GROUP)
    @flat(reader=Reader)
    def rank(
        model: Model,
        data: Data,
        /,
        *,
        k: _Lengths = None,
        threshold: _Threshold = None,
        gain: _Gain = "binary",
        reader: Any = no_reader,
    ) -> None:
        """Score how a saved model ranks all items, by the ratings it was not trained on, with 95 % intervals."""
        from mf_numpy import cli_model

        cli_model.rank(model, data, k=k or [10], threshold=threshold, gain=gain, reader=asdict(reader))
