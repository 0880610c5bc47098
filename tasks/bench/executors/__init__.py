"""Where the cells of a suite run: one file an executor, whose name is the value of `--executor`.

Each holds `run_all(runs, store, jobs, board)`, which runs these cells, so many at a time, each by `tasks.bench.attempt`
in whatever process and on whatever machine, and gives back the names of those that failed. One that fails or dies never
stops the others, and a number never depends on the executor. Which cell is next, and what becomes of it, an `Agenda`
knows; the board is told how far cells are, and shows it.
"""
