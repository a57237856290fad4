"""Find the best model that the data allows within a time budget: the ladder of recipes behind `embedlab tune`."""
