"""What training minimises: each objective turns a batch into a sum and a count."""

OBJECTIVES = {
    "next_token": "limbeck.objectives.likelihood:NextToken",
    "soft_target": "limbeck.objectives.divergence:SoftTarget",
    "contrastive": "limbeck.objectives.contrast:Contrastive",
}
