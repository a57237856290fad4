"""The arena: fine-tuning recipes as scripts, run on the same data and measured in the same way."""
