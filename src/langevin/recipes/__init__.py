"""Recipes: whole runs made of the rooms below. `langevin.recipes.train.train` is `langevin train`."""
