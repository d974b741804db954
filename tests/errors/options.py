"""Mistakes on the command line alone."""

from __future__ import annotations

from pathlib import Path

from tests.errors.mistake import Mistake

PATHS = "base.safetensors news.safetensors"


def same(folder: Path) -> None:
    """Nothing changes."""


OPTIONS: dict[str, Mistake] = {
    "a base alone": Mistake("check base.safetensors"),
    "a configuration among models": Mistake("geometry merge.yaml news.safetensors"),
    "words for coefficients": Mistake("predict merge.yaml --coefficients half"),
    "an infinite coefficient": Mistake("predict merge.yaml -c news=inf"),
    "a coefficient given twice": Mistake("predict merge.yaml -c news=1,news=2"),
    "an option with a coefficient of nobody": Mistake("predict merge.yaml -c mial=1"),
    "a tolerance out of range": Mistake("predict merge.yaml --tolerance 1"),
    "data beside a configuration": Mistake("predict merge.yaml --data news=data.safetensors"),
    "data without a name": Mistake("predict recipe.yaml --data data.safetensors"),
    "an option of an unknown device": Mistake("predict merge.yaml --device gpu"),
    "an option of an unknown dtype": Mistake("predict merge.yaml --dtype float8"),
    "an expert to negate that is none": Mistake("bounds merge.yaml --negate mial"),
    "a target beside coefficients": Mistake("bounds merge.yaml --target news -c 1"),
    "a target that is none": Mistake("bounds merge.yaml --target mial"),
    "a folder for the JSON": Mistake(f"check {PATHS} --json base"),
    "a folder that is not there": Mistake(f"check {PATHS} --html nowhere/page.html"),
    "a file for the folder of bases": Mistake(f"bases {PATHS} --out notes.txt"),
    "an unknown merge of bases": Mistake(f"bases {PATHS} --merge men"),
    "fisher without data": Mistake(f"bases {PATHS} --merge fisher"),
    "an earlier checkpoint that is not there": Mistake(f"bases {PATHS} --earlier step-1"),
    "an unknown derivation": Mistake("derivations 2.22"),
}
