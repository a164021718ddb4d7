"""``./dev bench fairness``: asks of one pair of agents beside the bulk of another, on one hop."""
