"""Spark: P·Q by ALS with Cholesky in a Java process on this machine; λ is weighted by a row's ratings.

Starting Java and putting the ratings there is no part of training. A fit of many iterations remembers how each came
about: without a folder for checkpoints, and a larger stack, it ends in a StackOverflowError.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, dots, main, peak_of

OPTIONS = {
    "spark.driver.extraJavaOptions": "-Xss64m",
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}


class Spark(Library):
    """``extra``: ``blocks`` (parts that users, and items, are dealt to)."""

    name = "pyspark"
    distribution = "pyspark"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            raise ImportError("Spark needs Java 17 or later, but no java is on the PATH and JAVA_HOME names none")
        import pandas as pd
        from pyspark.ml.recommendation import ALS
        from pyspark.sql import SparkSession

        self._blocks = int(order.options(blocks=order.threads)["blocks"])
        self._make = ALS
        self._folder = tempfile.TemporaryDirectory(prefix="mf-spark-")
        builder = SparkSession.builder.master(f"local[{order.threads}]")
        for key, value in (OPTIONS | {"spark.local.dir": self._folder.name}).items():
            builder = builder.config(key, value)
        self.session = session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        session.sparkContext.setCheckpointDir(self._folder.name)
        self._java = str(session.sparkContext._gateway.proc.pid)
        table = pd.DataFrame({"user": order.users, "item": order.items, "rating": order.values})
        self._data = session.createDataFrame(table).repartition(order.threads).cache()
        self._data.count()
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        if self.model is not None:
            self.model.userFactors.unpersist()
            self.model.itemFactors.unpersist()
        seed = {} if order.seed is None else {"seed": order.seed}
        als = self._make(
            rank=order.n_factors, maxIter=n_epochs, regParam=order.reg, numUserBlocks=self._blocks,
            numItemBlocks=self._blocks, **seed,
        )  # fmt: skip
        self.model = als.fit(self._data)
        each(n_epochs)

    def predict(self, users: Array, items: Array) -> Array:
        sizes = self.order.n_users, self.order.n_items
        tables = self.model.userFactors.toPandas(), self.model.itemFactors.toPandas()
        factors = []
        for size, table in zip(sizes, tables, strict=True):
            found = np.zeros((size, self.order.n_factors), np.float32)
            found[table["id"]] = np.stack(table["features"])
            factors.append(found)
        return dots(factors[0], factors[1], users, items)

    def cpu(self) -> float:
        """With the Java process's, where the system tells them."""
        stat = Path(f"/proc/{self._java}/stat")
        if not stat.exists():
            return super().cpu()
        # After the name, which is in brackets and may hold spaces, user and system ticks are words 11 and 12.
        words = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        return super().cpu() + (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> int | None:
        """With the Java process's."""
        mine, java = super().peak(), peak_of(self._java)
        return mine if mine is None or java is None else mine + java

    def close(self) -> None:
        self.session.stop()
        self._folder.cleanup()


if __name__ == "__main__":
    sys.exit(main(Spark, sys.argv[1:]))
