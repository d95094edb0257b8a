"""Quantisation: recipes that swap a model's linears for quantised ones. No recipe exists yet."""
