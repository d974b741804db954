"""Make two merges with transformers alone, and hold what they keep against what was predicted."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import diagnostics as dx

experts = {name: f"models/{name}" for name in ("even", "loops")}
data = {name: f"data/{name}.jsonl" for name in experts}
problem = dx.MergeProblem.from_pretrained("models/base", experts, data, private=["classifier.*"])
best = dx.best_coefficients(problem, objective="worst").coefficients
tokenizer = AutoTokenizer.from_pretrained("models/base")


def accuracy(model, name):
    """Share of the unseen examples that a model gets right."""
    rows = [json.loads(line) for line in Path(f"data/{name}-unseen.jsonl").read_text().splitlines()]
    with torch.no_grad():
        classes = model(**tokenizer([row["text"] for row in rows], return_tensors="pt")).logits.argmax(1)
    return (classes == torch.tensor([row["label"] for row in rows])).double().mean().item()


for coefficients in ({"even": 1.0, "loops": 1.0}, best):
    prediction, merged = dx.predict_merge(problem, coefficients), problem.merged(coefficients)
    print({name: round(value, 2) for name, value in coefficients.items()}, prediction.verdict)
    for name, folder in experts.items():
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        alone = accuracy(model, name)
        model.load_state_dict(merged, strict=False)  # the head stays the expert's own
        model.save_pretrained(f"merged/{name}")
        kept, found = prediction.tasks[name].retention, accuracy(model, name) / alone
        print(f"  {name} was predicted to keep {kept} and keeps {found:.4g} of {alone:.3f}")
        assert kept.lower <= found <= kept.upper
