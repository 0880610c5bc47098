"""python -m tasks._cider_df REFERENCES FILE: a whole set's document frequencies, to weigh a part's CIDEr by.

REFERENCES are official COCO annotations. With the FILE, `--set cider_df=FILE` lets a run on some of these pictures
report CIDEr, an unbiased estimate of the whole set's; `score` takes it as `--cider-df FILE`.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks._coco_files import references
from tasks.bench import commandline
from tasks.bench.documents import read_json
from tasks.bench.errors import InputError
from tasks.metrics import caption_rules as rules

app = commandline.new_app("Count in how many pictures' references each phrase occurs.")


@app.command()
def write(
    annotations: Annotated[Path, typer.Argument(metavar="REFERENCES", help="Official COCO annotations.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Is written; gzipped if its name ends in .gz.")],
) -> None:
    """Count, and write the counts."""
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} is no folder: give another FILE")
    frequencies = rules.Frequencies.of(rules.tokenized(list(references(read_json(annotations)).values())))
    try:
        frequencies.write(file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}): give another FILE") from None
    print(f"{len(frequencies.counts):,} phrases of {frequencies.pictures:,} pictures: {file}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(commandline.guarded(app))
