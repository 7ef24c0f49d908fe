"""Elasticsearch: an index of our own, or our fields in the portal's documents."""
