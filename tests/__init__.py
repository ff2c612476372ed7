# This file makes `tests` a package. Without it `python3 -m tests` would run any other
# package called "tests" that something has left in this Python's site-packages.
