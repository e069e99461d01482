"""``python -m edgeq``: the command, where its script is not on the path."""

from edgeq.cli.main import run

if __name__ == "__main__":
    run()
