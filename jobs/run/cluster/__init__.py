"""Past one machine: the unscored photos of waiting listings, fetched and scored on a Ray cluster."""
