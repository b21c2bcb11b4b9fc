"""The load runs: many slow clients, many streams, no connection left, storms of log-ins, a rolling restart.

Each is a coroutine over a running service that returns what it measured. `make load` runs them in full size and prints
the figures; the tests run them smaller, or with shorter deadlines, and hold the promises.
"""
