"""``python -m daskexec``: the same as the ``daskexec`` command. Floor 12, above `cli`."""

from daskexec.cli import main

if __name__ == "__main__":
    main()
