"""Words and pictures into model inputs: templates, the vision-language model, picture preprocessing."""
