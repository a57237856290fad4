"""Change the model of an index: stay, adapt, re-embed or tune again, decided on dev and checked on test.

`options` lists the ways, `maps` fits the adapters, `costs` counts documents, hours and days, `decision` holds the rule,
and `advise` does all of it for two model names and a dataset.
"""
