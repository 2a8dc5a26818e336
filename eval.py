"""Evaluate a trained network: ``python3 -m uv run eval.py run=runs/latest``."""

from senet.study.programs import eval_main

if __name__ == "__main__":
    eval_main()
