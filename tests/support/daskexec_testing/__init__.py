"""What the tests share and what their calls need on the workers.

It lives outside the test modules because a worker has to import it: pytest's importlib
mode gives test modules names that no other process knows. ``tests/conftest.py`` puts
the folder above on ``sys.path``, which executors hand on to their workers.
"""
