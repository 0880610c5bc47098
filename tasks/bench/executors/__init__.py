"""Where the cells of a suite run: one file an executor, whose name is the value of `--executor`.

Each holds `run_all(runs, store, jobs)`, which runs these cells, writes each into the store as soon as it is finished,
and gives back the names of those that failed. One that fails or dies never stops the others, and a number never
depends on the executor.
"""
