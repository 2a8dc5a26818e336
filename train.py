"""Train a Squeeze-and-Excitation network: ``python3 -m uv run train.py --help`` shows what can be chosen."""

from senet.study.programs import train_main

if __name__ == "__main__":
    train_main()
