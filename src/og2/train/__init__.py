"""One flow-matching loop and the recipes that make mini."""
