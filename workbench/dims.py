"""The dimension names of records: one word for one axis, everywhere."""

DIMS = {
    "run": "one training run",
    "step": "updates made so far",
    "layer": "block of the network, input side first",
    "head": "attention head",
    "matrix": "weight matrix, by its name in the model",
    "tensor": "parameter tensor, by its name in the model",
    "player": "one of several parties trained together",
    "mode": "mode of a mixture",
    "task": "task of a sequence",
    "group": "group of parameters, by role",
    "unit": "unit of a layer",
    "pruned": "share of the units taken out",
    "place": "what a number format is applied to",
    "sample": "example shown",
    "y": "picture row",
    "x": "picture column",
    "change": "entry of the timeline of changes made while training",
    "claim": "claim of the study",
}
