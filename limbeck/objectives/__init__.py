"""What training minimises: each objective turns a batch into a sum and a count."""

OBJECTIVES = {
    "next_token": "limbeck.objectives.likelihood:NextToken",
    "soft_target": "limbeck.objectives.soft_target:SoftTarget",
    "contrastive": "limbeck.objectives.contrast:Contrastive",
    "dpo": "limbeck.objectives.preference:Dpo",
    "grpo": "limbeck.objectives.policy:Grpo",
}
REWARDS = {
    "facts": "limbeck.objectives.rewards:facts",
    "form": "limbeck.objectives.rewards:form",
    "refusal": "limbeck.objectives.rewards:refusal",
    "brevity": "limbeck.objectives.rewards:brevity",
}
"""What `grpo` can reward: each a function of an answer and of the domain's manner."""
