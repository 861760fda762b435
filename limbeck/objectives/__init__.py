"""What training minimises: each objective turns a batch into a sum and a count."""

OBJECTIVES = {
    "next_token": "limbeck.objectives.next_token:NextToken",
    "soft_target": "limbeck.distillation.losses.soft_target:SoftTarget",
    "cross_tokenizer": "limbeck.distillation.losses.cross_tokenizer:CrossTokenizer",
    "contrastive": "limbeck.objectives.contrastive:Contrastive",
    "dpo": "limbeck.reinforcement.dpo:Dpo",
    "grpo": "limbeck.reinforcement.grpo:Grpo",
}
DIVERGENCES = {
    "forward_kl": "limbeck.distillation.losses.divergences:ForwardKl",
    "reverse_kl": "limbeck.distillation.losses.divergences:ReverseKl",
    "jensen_shannon": "limbeck.distillation.losses.divergences:JensenShannon",
    "skew_forward": "limbeck.distillation.losses.divergences:SkewForward",
    "skew_reverse": "limbeck.distillation.losses.divergences:SkewReverse",
    "total_variation": "limbeck.distillation.losses.divergences:TotalVariation",
    "adaptive": "limbeck.distillation.losses.divergences:Adaptive",
}
"""How far a student is from its teacher, for `soft_target`."""
REWARDS = {
    "facts": "limbeck.reinforcement.rewards:facts",
    "form": "limbeck.reinforcement.rewards:form",
    "refusal": "limbeck.reinforcement.rewards:refusal",
    "brevity": "limbeck.reinforcement.rewards:brevity",
}
"""What `grpo` can reward: each a function of an answer and of the domain's manner."""
