"""What the server that cells are forked from has done already: what takes seconds to import, and to hash."""

import tasks.bench.attempt
import tasks.bench.run  # noqa: F401
from tasks.bench import sources

sources.read_all()
