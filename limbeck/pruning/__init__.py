"""Cutting coupled groups out of a model: what to cut, how training makes it zero, and the cut."""

CRITERIA = {
    "l1": "limbeck.pruning.criteria:l1",
    "group_l2": "limbeck.pruning.criteria:group_l2",
    "norm_product": "limbeck.pruning.criteria:norm_product",
}
