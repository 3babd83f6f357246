"""How good masks are: metrics, reports and pictures of a model against ground truth."""
