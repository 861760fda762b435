"""What training minimises: each objective turns a batch into a sum and a count."""

OBJECTIVES = {
    "next_token": "limbeck.objectives.likelihood:NextToken",
    "soft_target": "limbeck.objectives.soft_target:SoftTarget",
    "cross_tokenizer": "limbeck.objectives.crossing:CrossTokenizer",
    "contrastive": "limbeck.objectives.contrast:Contrastive",
    "dpo": "limbeck.objectives.preference:Dpo",
    "grpo": "limbeck.objectives.policy:Grpo",
}
DIVERGENCES = {
    "forward_kl": "limbeck.objectives.divergences:ForwardKl",
    "reverse_kl": "limbeck.objectives.divergences:ReverseKl",
    "jensen_shannon": "limbeck.objectives.divergences:JensenShannon",
    "skew_forward": "limbeck.objectives.divergences:SkewForward",
    "skew_reverse": "limbeck.objectives.divergences:SkewReverse",
    "total_variation": "limbeck.objectives.divergences:TotalVariation",
    "adaptive": "limbeck.objectives.divergences:Adaptive",
}
"""How far a student is from its teacher, for `soft_target`."""
REWARDS = {
    "facts": "limbeck.objectives.rewards:facts",
    "form": "limbeck.objectives.rewards:form",
    "refusal": "limbeck.objectives.rewards:refusal",
    "brevity": "limbeck.objectives.rewards:brevity",
}
"""What `grpo` can reward: each a function of an answer and of the domain's manner."""
