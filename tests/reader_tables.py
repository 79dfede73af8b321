"""Small tables in every format that the readers know, and how the tests write them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy import Ratings

ANIME = "user_id,anime_id,rating\n3,20,8\n1,20,-1\n1,5,10\n3,5,7\n"
ANIME_ITEMS = 'anime_id,name,genre,type\n5,Kimi &amp; Boku&#039;s,"Drama, Sci-Fi",TV\n20,Naruto,,\n'
U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t878887116\n"
U_ITEM = "242|Kolya (1996)|24-Jan-1997||url|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n302|Misérables, Les|||url|" + (
    "|".join("1" if k in (8, 15) else "0" for k in range(19)) + "\n"
)
DAT = "1::1193::5::978300760\n2::661::3.5::978302109\n"
MOVIES_DAT = "661::James (1996)::Animation|Children's\n1193::Cuckoo::Drama\n"
ML_CSV = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n7,10,0.5,851868750\n"
MOVIES_CSV = 'movieId,title,genres\n31,"Minds, Dangerous (1995)",Drama\n10,GoldenEye,(no genres listed)\n'
CSV = "user,item,rating\nb,x,1\na,y,2.5\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(ratings: Ratings) -> list[tuple[Any, ...]]:
    raw = (ratings.user_ids.decode(ratings.users), ratings.item_ids.decode(ratings.items), ratings.values)
    return list(zip(*(column.tolist() for column in raw), strict=True))


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
