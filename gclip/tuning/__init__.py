"""Studies with Optuna: what is searched, who proposes, where it is kept, on one machine or many."""
